"""Where content is put: the calls of a block blob, at a signed URL, without a bearer token.

    PUT …?{signature}&comp=block&blockid={base64}     201
    PUT …?{signature}&comp=blocklist                  201   <BlockList><Latest>…</Latest>…
    PUT …?{signature}        x-ms-blob-type: BlockBlob      201   the whole content
    HEAD …?{signature}                                200   what the block list comes to

Refusals are the storage service's XML. The query holds the signature, and never reaches a log.
"""

import hashlib
import uuid
from base64 import b64encode
from collections.abc import AsyncIterator
from email.utils import format_datetime
from xml.sax.saxutils import escape

from lxml import etree
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from structlog import get_logger

from tandem.infra import http
from tandem.infra.errors import AppError, Invalid, Kind, TooLarge
from tandem.tenant.mobile_apps.model import BLOCK_BYTES, BLOCKS, ContentFile
from tandem.tenant.mobile_apps.uploads import BadBlock, BadBlockList, Uploads, block_id

PATH = "/mobileAppContent"
_LIST_BYTES = 8 * 1024 * 1024

# Status and code of the storage service for each kind of refusal.
CODES: dict[Kind, tuple[int, str]] = {
    Kind.INVALID: (400, "InvalidInput"),
    Kind.UNAUTHENTICATED: (403, "AuthenticationFailed"),
    Kind.FORBIDDEN: (403, "AuthenticationFailed"),
    Kind.NOT_FOUND: (404, "BlobNotFound"),
    Kind.CONFLICT: (409, "InvalidOperation"),
    Kind.GONE: (404, "BlobNotFound"),
    Kind.TOO_LARGE: (413, "RequestBodyTooLarge"),
    Kind.RATE_LIMITED: (503, "ServerBusy"),
    Kind.UNAVAILABLE: (503, "ServerBusy"),
    Kind.UNSUPPORTED: (405, "UnsupportedHttpVerb"),
}

log = get_logger("mobile_apps")


class _BadRequest(Invalid):
    """`azure` is the storage service's code for it."""


class _WrongVerb(AppError):
    kind, code = Kind.UNSUPPORTED, "content.wrong-verb"


class _Missing(AppError):
    kind, code = Kind.NOT_FOUND, "content.nothing-put"


def upload_routes(uploads: Uploads) -> list[BaseRoute]:
    async def serve(request: Request) -> Response:
        headers = {
            "x-ms-request-id": str(uuid.uuid4()),
            "x-ms-version": "2021-08-06",
            "Date": format_datetime(uploads.now(), usegmt=True),
        }
        if given := request.headers.get("x-ms-client-request-id", "")[:128]:
            headers["x-ms-client-request-id"] = given
        try:
            return await _serve(uploads, request, headers)
        except ClientDisconnect:
            raise
        except AppError as error:
            return _refusal(error, headers)
        except Exception:
            log.exception("unexpected", path=PATH)
            return _answer(500, "InternalError", "Something went wrong on the server.", headers)

    return [Route(PATH + "/{file}", serve, methods=["GET", "HEAD", "PUT", "POST", "DELETE"])]


async def _serve(uploads: Uploads, request: Request, headers: dict[str, str]) -> Response:
    query = request.query_params
    end, signature = query.get("se", ""), query.get("sig", "")
    file = await uploads.opened(request.path_params["file"], end, signature)
    if request.method in ("GET", "HEAD"):
        return _properties(file, request, headers)
    if request.method != "PUT":
        raise _WrongVerb("The resource doesn't support the specified HTTP verb.")
    content = _Checked(request)
    match query.get("comp", "").lower():
        case "block":
            id = block_id(query.get("blockid", ""))
            _announced(request, min(BLOCK_BYTES, file.encrypted_bytes))
            await uploads.put_block(file, end, signature, id, content.pieces())
        case "blocklist":
            await uploads.put_list(file, end, signature, _block_list(await _list_body(request)))
        case "":
            if request.headers.get("x-ms-blob-type", "").lower() != "blockblob":
                raise _BadRequest(
                    "The header x-ms-blob-type is not BlockBlob.", azure="MissingRequiredHeader"
                )
            _announced(request, file.encrypted_bytes)
            await uploads.put_whole(file, end, signature, content.pieces())
        case _:
            raise _BadRequest("This comp is not known.", azure="InvalidQueryParameterValue")
    headers |= {
        "ETag": f'"0x{uuid.uuid4().hex[:16].upper()}"',
        "Last-Modified": format_datetime(uploads.now(), usegmt=True),
        "x-ms-request-server-encrypted": "true",
    }
    if content.md5:
        headers["Content-MD5"] = content.md5
    return Response(status_code=201, headers=headers)


def _announced(request: Request, limit: int) -> None:
    """Refuse what is too long before it is read."""
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > limit:
        raise TooLarge(f"The body has more than the {limit:,} bytes that are taken here.")


class _Checked:
    """The body in pieces, compared at its end with the Content-MD5 that may have come with it."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self.md5 = ""

    async def pieces(self) -> AsyncIterator[bytes]:
        digest = hashlib.md5(usedforsecurity=False)
        async for piece in self._request.stream():
            digest.update(piece)
            yield piece
        self.md5 = b64encode(digest.digest()).decode()
        given = self._request.headers.get("content-md5", "")
        if given and given != self.md5:
            raise _BadRequest(
                "The MD5 value specified in the request did not match the content.",
                azure="Md5Mismatch",
            )


async def _list_body(request: Request) -> bytes:
    return await http.body(request, _LIST_BYTES)


def _block_list(data: bytes) -> list[tuple[str, str]]:
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
    try:
        tree = etree.fromstring(data, parser)
    except (etree.XMLSyntaxError, ValueError):
        raise _BadRequest(
            "The block list is not XML that can be read.", azure="InvalidXmlDocument"
        ) from None
    if etree.QName(tree).localname != "BlockList":
        raise _BadRequest("The document is not a BlockList.", azure="InvalidXmlDocument")
    found = []
    for item in tree.iterchildren("*"):
        place = etree.QName(item).localname.lower()
        if place not in ("latest", "uncommitted", "committed"):
            raise _BadRequest("The block list has an unknown element.", azure="InvalidXmlDocument")
        found.append((place, (item.text or "").strip()))
    if len(found) > BLOCKS:
        raise _BadRequest(f"A block list has at most {BLOCKS:,} blocks.", azure="BlockListTooLong")
    return found


def _properties(file: ContentFile, request: Request, headers: dict[str, str]) -> Response:
    """What lies there now, without its content: that is for nobody to read."""
    if file.blocks is None:
        raise _Missing("Nothing has been put here yet.")
    if request.method == "GET":
        raise _WrongVerb("Content is not given back.")
    size = sum(block.size_bytes for block in file.blocks)
    headers |= {"Content-Length": str(size), "x-ms-blob-type": "BlockBlob"}
    return Response(status_code=200, headers=headers)


def _refusal(error: AppError, headers: dict[str, str]) -> Response:
    status, code = CODES[error.kind]
    if isinstance(error, BadBlock):
        code = "InvalidBlobOrBlock"
    elif isinstance(error, BadBlockList):
        code = "InvalidBlockList"
    code = str(error.details.get("azure", code))
    return _answer(status, code, f"{error.message} {error.cure}".strip(), headers)


def _answer(status: int, code: str, message: str, headers: dict[str, str]) -> Response:
    body = (
        '<?xml version="1.0" encoding="utf-8"?>'
        f"<Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>"
    )
    headers = {**headers, "x-ms-error-code": code}
    return Response(body, status, headers, media_type="application/xml")
