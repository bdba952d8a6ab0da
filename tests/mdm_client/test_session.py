"""Whole sessions against transcripts written by hand."""

import re
from datetime import UTC, datetime

import httpx
import pytest
from test_tree import POLICY, FakeGate, tree

from tandem.agent.mdm import Account, BadAnswer, SessionRefused, Unreachable
from tandem.agent.mdm.session import Caller, Outcome, hold
from tandem.agent.mdm.tree import Tree
from tandem.workloads import Workload

ADDRESS = "https://mdm.example/ManagementServer/MDM.svc"
ACCOUNT = Account(
    "TandemMDM", ADDRESS, "D1", "CN=D1", "u@contoso.com", datetime(2026, 1, 1, tzinfo=UTC), 2, 1, 1
)
INFO = {"DevId": "D1", "Man": "M", "Mod": "X", "DmV": "1.3", "Lang": "en-US"}


def server(number: int, body: str, header: str = "200") -> str:
    return (
        '<SyncML xmlns="SYNCML:SYNCML1.2"><SyncHdr><VerDTD>1.2</VerDTD><VerProto>DM/1.2</VerProto>'
        f"<SessionID>5</SessionID><MsgID>{number}</MsgID><Target><LocURI>D1</LocURI></Target>"
        f"<Source><LocURI>{ADDRESS}</LocURI></Source></SyncHdr><SyncBody><Status><CmdID>1</CmdID>"
        f"<MsgRef>{number}</MsgRef><CmdRef>0</CmdRef><Cmd>SyncHdr</Cmd><Data>{header}</Data></Status>"
        f"{body}<Final/></SyncBody></SyncML>"
    )


def get(number: int, uri: str) -> str:
    target = f"<Item><Target><LocURI>{uri}</LocURI></Target></Item>"
    return f"<Get><CmdID>{number}</CmdID>{target}</Get>"


def put(name: str, number: int, uri: str, data: str) -> str:
    return (
        f"<{name}><CmdID>{number}</CmdID><Item><Target><LocURI>{uri}</LocURI></Target>"
        f'<Meta><Format xmlns="syncml:metinf">chr</Format></Meta><Data>{data}</Data></Item></{name}>'
    )


class Service:
    """Answers with what is next in the transcript, and keeps what was said to it."""

    def __init__(self, *answers: str | httpx.Response) -> None:
        self.answers = list(answers)
        self.heard: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        assert str(request.url) == f"{ADDRESS}?mode=Maintenance&Platform=WoA"
        assert request.headers["content-type"] == "application/vnd.syncml.dm+xml"
        self.heard.append(request.content.decode())
        answer = self.answers.pop(0)
        return answer if isinstance(answer, httpx.Response) else httpx.Response(200, text=answer)

    def statuses(self, message: int) -> list[tuple[str, str]]:
        """(command reference, code) in a message of the device."""
        return re.findall(r"<CmdRef>(\d*)</CmdRef>.*?<Data>(\d+)</Data>", self.heard[message])


async def session(service: Service, nodes: Tree | None = None) -> Outcome:
    async with httpx.AsyncClient(transport=httpx.MockTransport(service)) as http:
        return await hold(Caller(http, ACCOUNT, INFO, 0.001), nodes or tree(), "5", [], "schedule")


async def test_the_first_message_opens_the_session_and_says_who_calls() -> None:
    service = Service(server(1, ""))
    outcome = await session(service)
    (first,) = service.heard
    assert first.index("<Data>1201</Data>") < first.index("LoginStatus") < first.index("./DevInfo")
    assert "<MsgID>1</MsgID>" in first
    assert "<Source><LocURI>D1</LocURI></Source>" in first
    assert outcome == Outcome()


async def test_a_session_lasts_until_nothing_is_left_to_ask() -> None:
    service = Service(
        server(1, get(2, "./DevInfo/Man") + get(3, "./DevInfo/Nothing")),
        server(2, put("Replace", 2, POLICY, "on")),
        server(3, ""),
    )
    outcome = await session(service)
    assert service.statuses(1) == [("0", "200"), ("2", "200"), ("3", "404")]
    assert "<Results>" in service.heard[1]
    assert "<Data>M</Data>" in service.heard[1]
    assert service.statuses(2) == [("0", "200"), ("2", "200")]
    assert "<MsgID>3</MsgID>" in service.heard[2]
    assert outcome.commands == 3
    assert outcome.failed == ["Get ./DevInfo/Nothing: 404"]


async def test_an_empty_answer_ends_the_session() -> None:
    assert (await session(Service(httpx.Response(200)))).commands == 0


async def test_a_command_without_an_id_is_answered_with_an_empty_reference() -> None:
    service = Service(server(1, get(2, "./DevInfo/Man").replace("2", "")), server(2, ""))
    await session(service)
    assert ("", "400") in service.statuses(1)


async def test_an_atomic_group_leaves_nothing_behind_when_one_of_it_fails() -> None:
    group = put("Add", 3, POLICY, "a") + put("Replace", 4, "./DevInfo/Man", "x")
    service = Service(
        server(1, f"<Atomic><CmdID>2</CmdID>{group}{put('Add', 5, POLICY, 'b')}</Atomic>"),
        server(2, get(2, POLICY)),
        server(3, ""),
    )
    await session(service)
    assert service.statuses(1) == [
        ("0", "200"),
        ("2", "507"),
        ("3", "216"),
        ("4", "405"),
        ("5", "215"),
    ]
    assert service.statuses(2)[1] == ("2", "404")


async def test_a_lost_answer_is_asked_for_again_with_the_same_message() -> None:
    service = Service(httpx.Response(503), httpx.Response(429), server(1, ""))
    await session(service)
    assert len(set(service.heard)) == 1
    assert len(service.heard) == 3


async def test_a_service_that_stays_away_is_reported_with_its_number() -> None:
    with pytest.raises(Unreachable) as trouble:
        await session(Service(*[httpx.Response(500)] * 3))
    assert trouble.value.hresult == "0x80180010"


async def test_a_device_that_the_service_does_not_know_is_told_what_to_do() -> None:
    with pytest.raises(SessionRefused) as refusal:
        await session(Service(httpx.Response(401)))
    assert refusal.value.hresult == "0x80190191"
    with pytest.raises(SessionRefused):
        await session(Service(server(1, "", "401")))


async def test_an_endless_session_is_broken_off() -> None:
    service = Service(*[server(n, get(2, "./DevInfo/Man")) for n in range(1, 300)])
    with pytest.raises(BadAnswer):
        await session(service)


async def test_unenrolling_breaks_the_session_off_at_once() -> None:
    uri = "./Vendor/MSFT/DMClient/Provider/TandemMDM/Unenroll"
    service = Service(server(1, put("Exec", 2, uri, "TandemMDM")))
    outcome = await session(service)
    assert outcome.unenroll
    assert len(service.heard) == 1


async def test_what_the_site_owns_is_not_written_by_the_service() -> None:
    gate = FakeGate(Workload.WINDOWS_UPDATE)
    service = Service(
        server(
            1,
            put("Replace", 2, POLICY, "mdm")
            + put("Replace", 3, "./Vendor/MSFT/Policy/Config/Update/Defer", "7"),
        ),
        server(2, ""),
    )
    await session(service, tree(gate))
    assert gate.values == {"Update/Defer": "7"}
