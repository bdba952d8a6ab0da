"""tandem app: line-of-business apps that the MDM service installs."""

import tempfile
import time
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path, PureWindowsPath
from typing import Annotated, Any, BinaryIO
from urllib.parse import quote

import typer

from tandem.cli.context import Api, Json, NotReachable, Refused, emit, graph_client, progress, table
from tandem.cli.group import find_group
from tandem.protocols import intunewin

app = typer.Typer(help="Apps that the MDM service installs.", no_args_is_help=True)

_APPS = "/v1.0/deviceAppManagement/mobileApps"
_GRAPH = "#microsoft.graph."
_PIECE_BYTES = 1024 * 1024
_BLOCK_BYTES = 8 * 1024 * 1024


@app.command()
def upload(
    file: Annotated[
        Path, typer.Argument(help="An MSI, or an .intunewin package.", exists=True, dir_okay=False)
    ],
    name: Annotated[str, typer.Option(help="Default: the product name in the file.")] = "",
    description: Annotated[str, typer.Option()] = "",
    publisher: Annotated[str, typer.Option()] = "",
    command_line: Annotated[str, typer.Option(help="Arguments of the MSI, as copied.")] = "",
    command_line_file: Annotated[Path | None, typer.Option(exists=True)] = None,
    developer: Annotated[str, typer.Option()] = "",
    owner: Annotated[str, typer.Option()] = "",
    notes: Annotated[str, typer.Option()] = "",
    information_url: Annotated[str, typer.Option()] = "",
    privacy_url: Annotated[str, typer.Option()] = "",
    ignore_version: Annotated[
        bool, typer.Option("--ignore-version", help="MSI: any version that is there will do.")
    ] = False,
    for_users: Annotated[
        bool,
        typer.Option(
            "--for-users", help="MSI that installs for the device or for a user: for a user."
        ),
    ] = False,
    timeout: Annotated[
        int, typer.Option(help="MSI: minutes that it may take; 0: no limit.", min=0, max=255)
    ] = 60,
    retries: Annotated[
        int, typer.Option(help="MSI: times that the device tries again.", min=0, max=255)
    ] = 3,
    retry_minutes: Annotated[
        int, typer.Option(help="MSI: minutes between these times.", min=0, max=255)
    ] = 5,
    install: Annotated[str, typer.Option(help="Win32: the command that installs.")] = "",
    uninstall: Annotated[str, typer.Option(help="Win32: the command that uninstalls.")] = "",
    detect_product: Annotated[
        str, typer.Option(help="Win32: the product code that shows that it is there.")
    ] = "",
    detect_file: Annotated[
        str, typer.Option(help="Win32: the file, with its folder, that shows that it is there.")
    ] = "",
    json: Json = False,
) -> None:
    """Make an app of a package: an MSI tells its name and product code itself."""
    line = command_line_file.read_text("utf-8").strip() if command_line_file else command_line
    said = {
        "displayName": name,
        "description": description,
        "publisher": publisher,
        "developer": developer,
        "owner": owner,
        "notes": notes,
        "informationUrl": information_url,
        "privacyInformationUrl": privacy_url,
    }
    graph = graph_client()
    with ExitStack() as held:
        if file.suffix.lower() == ".intunewin":
            if for_users:
                raise typer.BadParameter("--for-users is for an MSI.")
            package = intunewin.read_package(held.enter_context(file.open("rb")))
            body = {
                **_win32(package, install, uninstall, detect_product, detect_file),
                **{key: value for key, value in said.items() if value},
            }
            content, info = package.content(), package.info
            sizes = package.size_bytes, package.encrypted_bytes
        else:
            body = {
                "@odata.type": f"{_GRAPH}windowsMobileMSI",
                "fileName": file.name,
                "commandLine": line,
                "ignoreVersionDetection": ignore_version,
                "installTimeoutInMinutes": timeout,
                "installRetryCount": retries,
                "installRetryIntervalInMinutes": retry_minutes,
                **said,
            }
            if for_users:
                body["useDeviceContext"] = False
            sealed = held.enter_context(tempfile.TemporaryFile())
            info = intunewin.seal(_pieces(held.enter_context(file.open("rb"))), sealed)
            sizes = file.stat().st_size, sealed.tell()
            sealed.seek(0)
            content = _pieces(sealed)
        # The install context is a property of beta alone.
        made = graph.post(_APPS.replace("/v1.0/", "/beta/") if for_users else _APPS, body)
        try:
            with progress(f"Uploading {file.name}", json) as tell:
                _upload(graph, made, file.name, content, info, sizes, tell)
        except (Refused, NotReachable):
            # What cannot be used leaves nothing behind; why it cannot is what counts.
            with suppress(Refused, NotReachable):
                graph.delete(f"{_APPS}/{made['id']}")
            raise
    value = graph.get(f"{_APPS}/{made['id']}")
    code = value.get("productCode")
    told = f"{value['displayName']}{f' ({code})' if code else ''} is ready to be assigned."
    emit(value, lambda _: told, json)


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(_PIECE_BYTES):
        yield piece


def _win32(
    package: intunewin.Package, install: str, uninstall: str, product: str, file: str
) -> dict[str, Any]:
    """The app that a package is, as far as it says so itself. Raises Refused."""
    msi = package.msi
    if msi is not None:
        install = install or f'msiexec /i "{package.setup_file}" /qn'
        uninstall = uninstall or f"msiexec /x {msi.product_code} /qn"
        product = product or msi.product_code
    if not install or not uninstall or not (product or file):
        raise Refused(
            "The package does not say how it is installed, uninstalled and detected.",
            cure="Give --install, --uninstall, and --detect-product or --detect-file.",
        )
    if product:
        rule: dict[str, Any] = {
            "@odata.type": f"{_GRAPH}win32LobAppProductCodeRule",
            "ruleType": "detection",
            "productCode": product,
            "productVersionOperator": "notConfigured",
            "productVersion": None,
        }
    else:
        path = PureWindowsPath(file)
        rule = {
            "@odata.type": f"{_GRAPH}win32LobAppFileSystemRule",
            "ruleType": "detection",
            "path": str(path.parent),
            "fileOrFolderName": path.name,
            "check32BitOn64System": False,
            "operationType": "exists",
            "operator": "notConfigured",
            "comparisonValue": None,
        }
    return {
        "@odata.type": f"{_GRAPH}win32LobApp",
        "displayName": package.name,
        "publisher": msi.publisher if msi is not None else "",
        "fileName": package.file_name,
        "setupFilePath": package.setup_file,
        "installCommandLine": install,
        "uninstallCommandLine": uninstall,
        "installExperience": {
            "runAsAccount": "system",
            "deviceRestartBehavior": "basedOnReturnCode",
        },
        "rules": [rule],
    }


def _upload(
    graph: Api,
    made: dict[str, Any],
    name: str,
    content: Iterable[bytes],
    info: intunewin.EncryptionInfo,
    sizes: tuple[int, int],
    tell: Callable[[str], None],
) -> None:
    """A content version with one file: put in blocks, committed, verified, made the app's."""
    sort = made["@odata.type"]
    versions = f"{_APPS}/{made['id']}/{sort.removeprefix('#')}/contentVersions"
    version = graph.post(versions, {})["id"]
    files = f"{versions}/{version}/files"
    body = {"name": name, "size": sizes[0], "sizeEncrypted": sizes[1], "isDependency": False}
    file = graph.post(files, {"@odata.type": f"{_GRAPH}mobileAppContentFile", **body})
    one = f"{files}/{file['id']}"
    url = _until(graph, one, "azureStorageUriRequest")["azureStorageUri"]
    ids: list[str] = []
    done = 0
    for block in _blocks(content):
        ids.append(b64encode(f"{len(ids):08d}".encode()).decode())
        query = f"&comp=block&blockid={quote(ids[-1], safe='')}"
        graph.put_content(url + query, block, {"x-ms-blob-type": "BlockBlob"})
        done += len(block)
        tell(f"Uploading {name}: {done * 100 // sizes[1]} %")
    latest = "".join(f"<Latest>{id}</Latest>" for id in ids)
    document = f'<?xml version="1.0" encoding="utf-8"?><BlockList>{latest}</BlockList>'
    graph.put_content(f"{url}&comp=blocklist", document.encode(), {"Content-Type": "text/plain"})
    tell(f"Verifying {name}")
    graph.post(f"{one}/commit", {"fileEncryptionInfo": intunewin.show_info(info)})
    _until(graph, one, "commitFile")
    graph.patch(f"{_APPS}/{made['id']}", {"@odata.type": sort, "committedContentVersion": version})


def _blocks(content: Iterable[bytes]) -> Iterator[bytes]:
    held = bytearray()
    for piece in content:
        held += piece
        while len(held) >= _BLOCK_BYTES:
            yield bytes(held[:_BLOCK_BYTES])
            del held[:_BLOCK_BYTES]
    if held:
        yield bytes(held)


def _until(graph: Api, path: str, what: str) -> dict[str, Any]:
    """The file when this step of it is done. Raises Refused when it has failed."""
    pause = 0.05
    while True:
        file: dict[str, Any] = graph.get(path)
        state = file["uploadState"]
        if state == f"{what}Success":
            return file
        if state != f"{what}Pending":
            raise Refused(
                file.get("reason") or f"The upload has failed: its state is {state}.",
                cure="" if file.get("reason") else "Upload the file again.",
            )
        time.sleep(pause)
        pause = min(pause * 2, 2)


def find_app(graph: Api, wanted: str) -> dict[str, Any]:
    """By id, name or product code. Raises Refused."""
    for item in graph.every(_APPS):
        if wanted.casefold() in {
            item["id"],
            item["displayName"].casefold(),
            (item.get("productCode") or "").casefold(),
        }:
            return dict(item)
    raise Refused(f"There is no app {wanted!r}.", cure="List them: `tandem app list`.")


@app.command("list")
def list_apps(json: Json = False) -> None:
    """List the apps."""
    found = graph_client().every(_APPS)
    columns = {
        "displayName": "NAME",
        "productVersion": "VERSION",
        "publishingState": "STATE",
        "productCode": "PRODUCT CODE",
        "id": "ID",
    }
    emit(found, lambda rows: table(rows, columns), json)


@app.command()
def show(app: Annotated[str, typer.Argument(help="Name or id.")], json: Json = False) -> None:
    """Show an app and whom it is for."""
    graph = graph_client()
    found = find_app(graph, app)
    found["assignments"] = _assignments(graph, found["id"])
    emit(found, _text, json)


def _assignments(graph: Api, id: str) -> list[dict[str, Any]]:
    given = graph.get(f"{_APPS}/{id}/assignments")["value"]
    names = {item["id"]: item["displayName"] for item in graph.every("/v1.0/groups")}
    return [
        {
            "group": _target(item["target"], names),
            "excluded": "exclusion" in item["target"]["@odata.type"],
            "intent": item["intent"],
        }
        for item in given
    ]


def _target(target: dict[str, Any], names: dict[str, str]) -> str:
    if "groupId" in target:
        return names.get(target["groupId"], str(target["groupId"]))
    if "allDevices" in target["@odata.type"]:
        return "All devices"
    if "allLicensedUsers" in target["@odata.type"]:
        return "All users"
    return str(target.get("collectionId", ""))


def _text(value: dict[str, Any]) -> str:
    version = value.get("productVersion") or value.get("displayVersion") or ""
    lines = [
        f"{value['displayName']} {version} ({value['publishingState']})",
        f"Product code   {value.get('productCode') or ''}",
        f"Command line   {value.get('commandLine') or value.get('installCommandLine') or ''}",
    ]
    for item in value["assignments"]:
        word = "Excluded" if item["excluded"] else str(item["intent"]).capitalize()
        lines.append(f"{word:<14} {item['group']}")
    return "\n".join(lines)


@app.command()
def assign(
    app: Annotated[str, typer.Argument(help="Name or id.")],
    required: Annotated[bool, typer.Option("--required", help="The intent (default).")] = False,
    intent: Annotated[
        str, typer.Option(help="required, available or uninstall.", show_default=False)
    ] = "required",
    include: Annotated[list[str] | None, typer.Option(help="Group; repeatable.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Group; repeatable.")] = None,
    all_users: Annotated[bool, typer.Option("--all-users")] = False,
    all_devices: Annotated[bool, typer.Option("--all-devices")] = False,
    json: Json = False,
) -> None:
    """Give an app to groups, without the excluded ones. Replaces the assignments before."""
    graph = graph_client()
    found = find_app(graph, app)
    given = [
        {"intent": "required" if required else intent, "target": target}
        for target in targets(
            graph, include or [], exclude or [], all_users=all_users, all_devices=all_devices
        )
    ]
    graph.post(f"{_APPS}/{found['id']}/assign", {"mobileAppAssignments": given})
    reach = graph.post("/v1.0/tandem/assignmentReach", {"assignments": given})
    value = {
        "id": found["id"],
        "assignments": _assignments(graph, found["id"]),
        "users": reach["userCount"],
        "devices": reach["deviceCount"],
    }
    word = "required" if required else intent
    emit(
        value,
        lambda _: (
            f"{found['displayName']} is {word} for {value['users']} users and"
            f" {value['devices']} enrolled devices."
        ),
        json,
    )


def targets(
    graph: Api,
    include: list[str],
    exclude: list[str],
    *,
    all_users: bool = False,
    all_devices: bool = False,
) -> list[dict[str, Any]]:
    """Targets of Graph for groups by name or id, and for everybody. Raises Refused."""
    kinds = [("groupAssignmentTarget", item) for item in include]
    kinds += [("exclusionGroupAssignmentTarget", item) for item in exclude]
    found: list[dict[str, Any]] = [
        {"@odata.type": f"{_GRAPH}{kind}", "groupId": find_group(graph, group)}
        for kind, group in kinds
    ]
    for wanted, kind in (
        (all_users, "allLicensedUsersAssignmentTarget"),
        (all_devices, "allDevicesAssignmentTarget"),
    ):
        if wanted:
            found.append({"@odata.type": f"{_GRAPH}{kind}"})
    return found


@app.command()
def status(app: Annotated[str, typer.Argument(help="Name or id.")], json: Json = False) -> None:
    """What became of an app on each device: of the MSI, and of the client that it brings."""
    graph = graph_client()
    found = find_app(graph, app)
    rows = graph.every(f"/v1.0/tandem/mobileApps/{found['id']}/deviceStatuses")

    def text(_: Any) -> str:
        flat = [
            {
                **row,
                "error": _error(row["error"]),
                "registered": "yes" if row["client"]["registered"] else "no",
                "policy": "yes" if row["client"]["policyPresent"] else "no",
                "step": row["client"]["step"],
                "stuck": row["client"]["stuckAt"],
            }
            for row in rows
        ]
        columns = {
            "deviceName": "DEVICE",
            "intent": "INTENT",
            "installState": "MSI",
            "error": "ERROR",
            "step": "SETUP",
            "registered": "REGISTERED",
            "policy": "POLICY",
            "stuck": "STANDS STILL AT",
        }
        return table(flat, columns)

    emit(rows, text, json)


def _error(error: dict[str, Any] | None) -> str:
    return f"{error['code']}: {error['message']} {error['cure']}" if error else ""


@app.command(context_settings={"ignore_unknown_options": True})
def errors(
    code: Annotated[str, typer.Argument(help="One code, as hexadecimal or decimal.")] = "",
    json: Json = False,
) -> None:
    """What the codes of installations mean, and what to do."""
    wanted = code.strip()
    if wanted:
        try:
            number = int(wanted, 0)
        except ValueError:
            raise Refused(
                f"{wanted!r} is no code.", cure="Write it like 0x80070643 or -2147023293."
            ) from None
        wanted = f"0x{number & 0xFFFFFFFF:08X}" if not 0 <= number < 1000 else str(number)
    found = [
        item
        for item in graph_client().get("/v1.0/tandem/installErrors")["value"]
        if not wanted or item["code"] == wanted
    ]
    columns = {"code": "CODE", "name": "NAME", "message": "CAUSE", "cure": "CURE"}
    emit(found, lambda rows: table(rows, columns), json)


@app.command()
def delete(app: Annotated[str, typer.Argument(help="Name or id.")], json: Json = False) -> None:
    """Delete an app. Devices that have it keep it."""
    graph = graph_client()
    found = find_app(graph, app)
    graph.delete(f"{_APPS}/{found['id']}")
    emit({"id": found["id"]}, lambda _: f"Deleted {found['displayName']}.", json)
