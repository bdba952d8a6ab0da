"""The gateway on the internet, and the connection point that dials it from inside.

`run_instance` is one instance of a gateway: TLS, tokens and certificates, published endpoints, edge
answers, and the tunnels that connection points open. `run_connector` is a connection point. Neither
has a database; what they know comes from the site and is kept in their state folders.
"""

from tandem.gateway.connector import run as run_connector
from tandem.gateway.gate import Gate
from tandem.gateway.instance import CannotStart
from tandem.gateway.instance import run as run_instance
from tandem.gateway.model import ConnectorSettings, EdgeAnswer, Forward, GatewaySettings, Refusal

__all__ = [
    "CannotStart",
    "ConnectorSettings",
    "EdgeAnswer",
    "Forward",
    "Gate",
    "GatewaySettings",
    "Refusal",
    "run_connector",
    "run_instance",
]
