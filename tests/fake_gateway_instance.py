"""In the place of a gateway instance: reads its settings, says that it is healthy, waits.

Beside its settings a test may put `refuse` (it ends with a reason) and `hold` (it answers nothing
while that file is there).
"""

import signal
import sys
import time
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path


class Health(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


settings = tomllib.loads(Path(sys.argv[2]).read_text())
assert Path(settings["pfx"]).stat().st_mode & 0o077 == 0
if (Path(settings["pfx"]).parent / "refuse").exists():
    raise SystemExit("The port is in use by somebody else.")
host, _, port = settings["health"].partition(":")
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
while (Path(settings["pfx"]).parent / "hold").exists():
    time.sleep(0.02)
HTTPServer((host, int(port)), Health).serve_forever()
