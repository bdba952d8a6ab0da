"""Firewall rules in the kernel: the table `inet tandem` of nftables, one rule for each setting.

Asked for and read back in nft's own JSON (libnftables-json(5)), so what is compared is what the
kernel says. A rule carries its setting's name as a comment. Those that accept stand before those
that drop. The table is ours alone: what other tables drop stays dropped.
"""

import asyncio
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from ipaddress import ip_network
from typing import Any

import msgspec

from tandem.agent.handlers.model import Trouble
from tandem.workloads.instructions import Rule

_TABLE = {"family": "inet", "table": "tandem"}
_CHAINS = {"in": ("input", "saddr"), "out": ("output", "daddr")}
# A comment has 127 bytes at most (NFTNL_UDATA_COMMENT_MAXLEN).
_PLAIN = re.compile(r"[A-Za-z0-9_./ -]{1,100}")
_SECONDS = 20
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Firewall:
    def __init__(self, *, its_own: bool) -> None:
        """`its_own`: the kernel's rules that this process changes are those of the device that it
        manages. Where they are somebody else's, every call raises Trouble."""
        self._its_own = its_own

    async def in_place(self, wanted: Rule, setting: str) -> bool:
        """Whether the kernel has the rule, exactly once and in its chain. Raises Trouble."""
        chain, _ = _CHAINS[wanted.direction]
        found = [rule for rule in await self._rules() if rule.get("comment") == _comment(setting)]
        return [(rule["chain"], rule["expr"]) for rule in found] == [(chain, _matches(wanted))]

    async def write(self, wanted: Rule, setting: str) -> None:
        """Put the rule in the place of any that the setting had, in one transaction."""
        chain, _ = _CHAINS[wanted.direction]
        rule = {**_TABLE, "chain": chain, "expr": _matches(wanted), "comment": _comment(setting)}
        where = "insert" if wanted.action == "accept" else "add"
        commands = [
            {"add": {"table": {"family": _TABLE["family"], "name": _TABLE["table"]}}},
            {"add": {"chain": {**_TABLE, "name": chain, **_hook(chain)}}},
            *_deletions(await self._rules(), setting),
            {where: {"rule": rule}},
        ]
        await self._nft(commands)

    async def remove(self, setting: str) -> None:
        """Take the setting's rule away, and the table with the last one."""
        rules = await self._rules()
        commands = list(_deletions(rules, setting))
        if commands and len(commands) == len(rules):
            table = {"family": _TABLE["family"], "name": _TABLE["table"]}
            commands = [{"delete": {"table": table}}]
        if commands:
            await self._nft(commands)

    async def _rules(self) -> list[dict[str, Any]]:
        """The rules of our table; none without the table."""
        ended, output, said = await self._run("list", "tables")
        if ended:
            raise _failed(said)
        tables = [one["table"] for one in _items(output) if "table" in one]
        if not any((t["family"], t["name"]) == ("inet", "tandem") for t in tables):
            return []
        ended, output, said = await self._run("list", "table", "inet", "tandem")
        if ended:
            raise _failed(said)
        return [one["rule"] for one in _items(output) if "rule" in one]

    async def _nft(self, commands: list[dict[str, Any]]) -> None:
        document = msgspec.json.encode({"nftables": commands})
        ended, _, said = await self._run("-f", "-", given=document)
        if ended:
            raise _failed(said)

    async def _run(self, *arguments: str, given: bytes = b"") -> tuple[int, bytes, str]:
        if not self._its_own:
            raise Trouble(
                "firewall.not-its-own",
                "The agent's root is a folder, and its network is that of the machine around it:"
                " a rule would change the machine.",
                cure="Run the agent in a network of its own and say so in its settings"
                " (own_network), or manage the machine itself (root).",
            )
        # nft opens /dev/stdin anew, which works with a file and not with an event loop's socket.
        standard = os.memfd_create("nft")
        try:
            os.write(standard, given)
            os.lseek(standard, 0, os.SEEK_SET)
            process = await asyncio.create_subprocess_exec(
                "nft",
                "-j",
                *arguments,
                stdin=standard,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env={"PATH": _PATH, "LANG": "C.UTF-8"},
            )
        except FileNotFoundError:
            raise Trouble(
                "firewall.no-nft",
                "The program nft is not on this device.",
                cure="Install the package nftables.",
            ) from None
        finally:
            os.close(standard)
        try:
            async with asyncio.timeout(_SECONDS):
                output, said = await process.communicate()
        except TimeoutError:
            raise Trouble("firewall.failed", "nft does not end.") from None
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        return process.returncode or 0, output, said.decode("utf-8", "replace")


def _hook(chain: str) -> dict[str, Any]:
    return {"type": "filter", "hook": chain, "prio": 0, "policy": "accept"}


def _deletions(rules: list[dict[str, Any]], setting: str) -> Iterator[dict[str, Any]]:
    for rule in rules:
        if rule.get("comment") == _comment(setting):
            yield {"delete": {"rule": {**_TABLE, "chain": rule["chain"], "handle": rule["handle"]}}}


def _matches(wanted: Rule) -> list[dict[str, Any]]:
    """The rule's expressions, as nft lists them."""
    found: list[dict[str, Any]] = []
    if wanted.address:
        network = ip_network(wanted.address)
        family = "ip" if network.version == 4 else "ip6"
        _, field = _CHAINS[wanted.direction]
        whole = network.prefixlen == network.max_prefixlen
        address = str(network.network_address)
        prefix = {"prefix": {"addr": address, "len": network.prefixlen}}
        found.append(_match(family, field, address if whole else prefix))
    found.append(_match(wanted.protocol, "dport", wanted.port))
    return [*found, {wanted.action: None}]


def _match(protocol: str, field: str, value: Any) -> dict[str, Any]:
    left = {"payload": {"protocol": protocol, "field": field}}
    return {"match": {"op": "==", "left": left, "right": value}}


def _items(output: bytes) -> list[dict[str, Any]]:
    try:
        found: list[dict[str, Any]] = msgspec.json.decode(output)["nftables"]
    except (msgspec.DecodeError, KeyError, TypeError):
        raise Trouble("firewall.failed", "nft answers something that is not its JSON.") from None
    return found


def _comment(setting: str) -> str:
    """The setting's name where it can be a comment; else what stands for it."""
    return setting if _PLAIN.fullmatch(setting) else sha256(setting.encode()).hexdigest()


def _failed(said: str) -> Trouble:
    first = next((line for line in said.splitlines() if line.strip()), "nothing")
    if "not permitted" in said:
        return Trouble(
            "firewall.not-permitted",
            "The agent may not change firewall rules here.",
            cure="Run it as root, or with CAP_NET_ADMIN in its network.",
        )
    return Trouble("firewall.failed", f"nft says: {first[:200]}")
