// One client that gets RS256 JWT access tokens by client credentials; everything in memory.
// Arguments: port, certificate file, key file, client id, file with the client secret.
import { generateKeyPairSync } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:https";
import { Provider } from "oidc-provider";

const [port, certificate, key, clientId, secretFile] = process.argv.slice(2);
const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
const resource = "https://graph.microsoft.com";

const provider = new Provider(`https://localhost:${port}`, {
  jwks: { keys: [{ ...privateKey.export({ format: "jwk" }), alg: "RS256", use: "sig" }] },
  clients: [{
    client_id: clientId,
    client_secret: readFileSync(secretFile, "utf8").trim(),
    grant_types: ["client_credentials"],
    redirect_uris: [],
    response_types: [],
    token_endpoint_auth_method: "client_secret_post",
  }],
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => resource,
      getResourceServerInfo: () => ({
        scope: "all",
        accessTokenFormat: "jwt",
        accessTokenTTL: 3600,
        jwt: { sign: { alg: "RS256" } },
      }),
    },
  },
});
const options = { cert: readFileSync(certificate), key: readFileSync(key) };
createServer(options, provider.callback()).listen(Number(port), "127.0.0.1");
