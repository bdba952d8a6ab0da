"""The MDM certificate in the machine's store. Its key never leaves Windows, often not even the TPM.

Python's TLS wants a key in a file, so requests that prove who this device is are made by .NET inside
PowerShell: schannel signs the handshake with the key where it is. That is a process for each, which
is little: a device asks for a token every few hours.
"""

from base64 import b64decode, b64encode
from collections.abc import Callable

from cryptography import x509

from tandem.agent.platform.certificate import Answer
from tandem.agent.platform.meeting import DirectoryUnreachable
from tandem.agent.platform.model import NotJoined, NoToken
from tandem.agent.platform.windows.programs import PowerShell, ProgramFailed

_FIND = r"""
$certificate = Get-Item -LiteralPath ('Cert:\LocalMachine\My\' + $given.thumbprint)
if (-not $certificate.HasPrivateKey) { throw 'The certificate has no private key.' }
"""
# A refusal is an exception to Invoke-WebRequest; its body is what tells why.
_REQUEST = (
    _FIND
    + r"""
[Net.ServicePointManager]::SecurityProtocol = [Net.SecurityProtocolType]::Tls12
$request = [Net.HttpWebRequest]::Create($given.url)
$request.Method = $given.method
$request.AllowAutoRedirect = $false
$request.Timeout = 30000
[void]$request.ClientCertificates.Add($certificate)
if ($given.body) {
  $bytes = [Text.Encoding]::UTF8.GetBytes($given.body)
  $request.ContentType = 'application/x-www-form-urlencoded'
  $request.ContentLength = $bytes.Length
  $stream = $request.GetRequestStream(); $stream.Write($bytes, 0, $bytes.Length); $stream.Close()
}
try { $response = $request.GetResponse() }
catch [Net.WebException] {
  $response = $_.Exception.Response
  if ($null -eq $response) { @{ unreachable = $_.Exception.Message } | ConvertTo-Json -Compress; exit 0 }
}
$memory = New-Object IO.MemoryStream
$response.GetResponseStream().CopyTo($memory)
@{ status = [int]$response.StatusCode; body = [Convert]::ToBase64String($memory.ToArray()) } |
  ConvertTo-Json -Compress
"""
)
_SIGN = (
    _FIND
    + r"""
$key = [Security.Cryptography.X509Certificates.RSACertificateExtensions]::GetRSAPrivateKey($certificate)
$signature = $key.SignData([Convert]::FromBase64String($given.data),
  [Security.Cryptography.HashAlgorithmName]::SHA256,
  [Security.Cryptography.RSASignaturePadding]::Pkcs1)
@{ signature = [Convert]::ToBase64String($signature) } | ConvertTo-Json -Compress
"""
)
_SHOW = (
    _FIND + r"@{ der = [Convert]::ToBase64String($certificate.RawData) } | ConvertTo-Json -Compress"
)


class StoreChannel:
    """The `CertificateChannel` of Windows. `thumbprint` says which certificate is in force: it is
    another one after a renewal. Empty: this machine is not enrolled."""

    def __init__(self, shell: PowerShell, thumbprint: Callable[[], str]) -> None:
        self._shell = shell
        self._thumbprint = thumbprint

    async def get(self, url: str) -> Answer:
        return await self._ask("GET", url, "")

    async def post(self, url: str, form: dict[str, str]) -> Answer:
        from urllib.parse import urlencode

        return await self._ask("POST", url, urlencode(form))

    async def _ask(self, method: str, url: str, body: str) -> Answer:
        if not url.startswith("https://"):
            raise NoToken(f"{url[:80]} is no address for a certificate.", cure="Use https.")
        found = await self._with_key(_REQUEST, method=method, url=url, body=body)
        if "unreachable" in found:
            raise DirectoryUnreachable(
                f"The tenant does not answer: {found['unreachable']}",
                cure="Check the device's network.",
            )
        return Answer(int(found["status"]), b64decode(found["body"]))

    async def sign(self, data: bytes) -> bytes:
        """RSASSA-PKCS1-v1_5 with SHA-256 by the certificate's key."""
        found = await self._with_key(_SIGN, data=b64encode(data).decode())
        return b64decode(found["signature"])

    async def certificate(self) -> x509.Certificate:
        found = await self._with_key(_SHOW)
        return x509.load_der_x509_certificate(b64decode(found["der"]))

    async def _with_key(self, script: str, **given: str) -> dict[str, str]:
        thumbprint = self._thumbprint()
        if not thumbprint:
            raise NotJoined("This device is not enrolled.", cure="Enrol the device.")
        try:
            found = await self._shell.ask(script, thumbprint=thumbprint, **given)
        except ProgramFailed as error:
            raise NoToken(
                f"The MDM certificate {thumbprint} cannot be used: {error.message}",
                cure="Look for it with certlm.msc; have the device enrol again when it is gone.",
            ) from None
        if not isinstance(found, dict):
            raise DirectoryUnreachable("PowerShell gives no answer.", cure="It is tried again.")
        return found
