"""In the place of a gateway instance: reads its settings, says that it is healthy, waits.

Beside its settings a test may put `refuse` (it ends with a reason), `hold` (it answers nothing
while that file is there) and `deaf` (it takes no other certificate while it runs).
"""

import signal
import sys
import time
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

shown = b""


def renew(*_: object) -> None:
    """As the real one does it when it is told: the certificate that now lies there."""
    global shown
    if (Path(settings["pfx"]).parent / "deaf").exists():
        return
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import pkcs12

    password = Path(settings["pfx_password_file"]).read_bytes()
    found = pkcs12.load_pkcs12(Path(settings["pfx"]).read_bytes(), password).cert
    assert found is not None
    shown = found.certificate.fingerprint(SHA256()).hex().encode()


class Health(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        content = b'{"certificate":"%s"}' % shown
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


settings = tomllib.loads(Path(sys.argv[2]).read_text())
assert Path(settings["pfx"]).stat().st_mode & 0o077 == 0
if (Path(settings["pfx"]).parent / "refuse").exists():
    raise SystemExit("The port is in use by somebody else.")
host, _, port = settings["health"].partition(":")
signal.signal(signal.SIGHUP, renew)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
while (Path(settings["pfx"]).parent / "hold").exists():
    time.sleep(0.02)
HTTPServer((host, int(port)), Health).serve_forever()
