"""What is served, told to programs: `$metadata` (OData CSDL) and OpenAPI 3.1.

Both are read from the operations that are run, so they cannot promise what is not there. In OpenAPI
`x-ms-permissions` names the permissions and roles of each operation, and `security` its scopes.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from lxml import etree

from tandem.protocols.odata import Primitive
from tandem.tenant import directory
from tandem.tenant.graph import rows
from tandem.tenant.graph.model import Access, Field, Resource
from tandem.tenant.graph.service import ADVANCED, Frame, Operation

_EDMX = "http://docs.oasis-open.org/odata/ns/edmx"
_EDM = "http://docs.oasis-open.org/odata/ns/edm"
_KEY = re.compile(r"\{(\w+)\}")

JSON_TYPES: dict[Primitive, dict[str, Any]] = {
    Primitive.STRING: {"type": "string"},
    Primitive.BOOLEAN: {"type": "boolean"},
    Primitive.INTEGER: {"type": "integer"},
    Primitive.TIME: {"type": "string", "format": "date-time"},
    Primitive.GUID: {"type": "string", "format": "uuid"},
    Primitive.BINARY: {"type": "string", "contentEncoding": "base64"},
    Primitive.COMPLEX: {"type": "object"},
}
REFUSALS = {
    "400": "The request is not understood, or asks for what cannot be.",
    "401": "There is no valid access token.",
    "403": "The permissions or the role do not suffice.",
    "404": "The object does not exist.",
    "405": "The method is not allowed here.",
    "409": "The object is in a state that does not allow it.",
    "410": "The deltaLink has lapsed.",
    "412": "If-Match names another version of the object.",
    "413": "The body is too large.",
    "429": "Too many requests: come back after Retry-After seconds.",
    "503": "A part that is needed does not answer.",
}
_PAGED = ("$filter", "$search", "$orderby", "$top", "$skip", "$count", "$select", "$expand")
_OPTIONS: dict[str, tuple[str, ...]] = {
    "list": _PAGED,
    "navigate": _PAGED,
    "get": ("$select", "$expand"),
    "singleton": ("$select", "$expand"),
    "count": ("$filter", "$search"),
    "navigate-count": ("$filter", "$search"),
    "refs": ("$top", "$skip"),
    "delta": ("$select", "$top", "$deltatoken", "$filter"),
}


def served(frame: Frame) -> list[Operation]:
    """Every operation, in the order of paths."""
    return sorted(frame.operations(), key=lambda item: (item.path.lower(), item.method))


# ---------------------------------------------------------------------------------- OpenAPI


def openapi(frame: Frame, version: str, base: str) -> dict[str, Any]:
    """The description of one version, for the clients that reach the tenant at this base."""
    beta = version == "beta"
    paths: dict[str, dict[str, Any]] = {}
    scopes: set[str] = set()
    for operation in served(frame):
        path, names = _template(operation.path)
        described = paths.setdefault(path, {"parameters": [_path_parameter(n) for n in names]})
        if not names:
            described.pop("parameters", None)
        described[operation.method.lower()] = _operation(operation, beta)
        scopes |= operation.access.delegated | operation.access.own
    schemas: dict[str, Any] = {"error": _ERROR}
    for resource in frame.by_type.values():
        schemas |= _schemas(resource, beta)
    authority = f"{base}/common/oauth2/v2.0"
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"Graph of this tenant, {version}",
            "version": version,
            "description": "Names in paths and options are taken without regard to case.",
        },
        "servers": [{"url": f"{base}/{version}"}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "delegated": {
                    "type": "oauth2",
                    "flows": {
                        "authorizationCode": {
                            "authorizationUrl": f"{authority}/authorize",
                            "tokenUrl": f"{authority}/token",
                            "scopes": {name: name for name in sorted(scopes)},
                        }
                    },
                },
                "application": {
                    "type": "oauth2",
                    "flows": {
                        "clientCredentials": {
                            "tokenUrl": f"{authority}/token",
                            "scopes": {"https://graph.microsoft.com/.default": "app roles"},
                        }
                    },
                },
            },
        },
    }


def _template(path: str) -> tuple[str, list[str]]:
    """The path with a name of its own for each key."""
    names: list[str] = []

    def named(found: re.Match[str]) -> str:
        name = found[1]
        while name in names:
            name += "2"
        names.append(name)
        return f"{{{name}}}"

    return "/" + _KEY.sub(named, path), names


def _path_parameter(name: str) -> dict[str, Any]:
    schema = {"type": "string", "minLength": 1}
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _operation(operation: Operation, beta: bool) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": f"{operation.path}.{operation.sort}".replace("/", ".").replace("$", ""),
        "tags": [operation.path.partition("/")[0]],
        "x-ms-permissions": permissions(operation.access),
        "security": _security(operation.access),
        "parameters": list(_parameters(operation)),
        "responses": _responses(operation),
    }
    body = _body(operation, beta)
    if body is not None:
        required = operation.sort not in ("update", "run")
        content = {"application/json": {"schema": body}}
        described["requestBody"] = {"required": required, "content": content}
    return described


def permissions(access: Access) -> dict[str, list[str]]:
    """Who may, in the words of administrators."""
    return {
        "delegated": sorted(access.delegated),
        "application": sorted(access.application),
        "roles": sorted(directory.role_name(role) for role in access.roles),
        "own": sorted(access.own),
    }


def _security(access: Access) -> list[dict[str, list[str]]]:
    every = [{"delegated": [name]} for name in sorted(access.delegated | access.own)]
    if access.application:
        every.append({"application": ["https://graph.microsoft.com/.default"]})
    return every


def _parameters(operation: Operation) -> Iterator[dict[str, Any]]:
    for name in _OPTIONS.get(operation.sort, ()):
        schema: dict[str, Any] = {"type": "string"}
        if name in ("$top", "$skip"):
            schema = {"type": "integer", "minimum": 0, "maximum": 999_999_999}
        elif name == "$count":
            schema = {"type": "boolean"}
        yield {"name": name, "in": "query", "schema": schema}
    resource = operation.resource
    if operation.method == "GET" and resource is not None and resource.type in ADVANCED:
        schema = {"type": "string", "enum": ["eventual"]}
        yield {"name": "ConsistencyLevel", "in": "header", "schema": schema}
    if resource is not None and resource.etag and operation.sort in ("update", "replace", "delete"):
        yield {"name": "If-Match", "in": "header", "schema": {"type": "string"}}


def _responses(operation: Operation) -> dict[str, Any]:
    refusals = {
        status: {
            "description": text,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/error"}}},
        }
        for status, text in REFUSALS.items()
    }
    return {**{str(code): _success(operation, code) for code in successes(operation)}, **refusals}


def successes(operation: Operation) -> Sequence[int]:
    """The status codes of success."""
    resource = operation.resource
    match operation.sort:
        case "create":
            assert resource is not None
            return (resource.create_status,)
        case "update":
            assert resource is not None
            return (resource.update_status,)
        case "replace":
            assert resource is not None
            return (resource.replace_status,)
        case "delete":
            assert resource is not None
            return (resource.deleted_status,)
        case "add-ref" | "set-ref" | "remove-ref":
            return (204,)
        case "run" if operation.method != "GET":
            return (200, 201, 202, 204)
    return (200,)


def _success(operation: Operation, status: int) -> dict[str, Any]:
    described: dict[str, Any] = {"description": "Done." if operation.writing else "The answer."}
    resource, sort = operation.resource, operation.sort
    if sort in ("count", "navigate-count"):
        described["content"] = {"text/plain": {"schema": {"type": "string", "pattern": "^\\d+$"}}}
    elif sort == "run" and operation.path.endswith("$value"):
        described["content"] = {"application/octet-stream": {}}
    elif status in (200, 201, 202) and sort != "delete":
        item: dict[str, Any] = {"type": "object"}
        if resource is not None and operation.navigation is None:
            item = {"$ref": f"#/components/schemas/{resource.type}"}
        if sort in ("list", "delta") or (
            operation.navigation is not None and not operation.navigation.single
        ):
            item = {
                "type": "object",
                "required": ["value"],
                "properties": {
                    "@odata.context": {"type": "string"},
                    "@odata.count": {"type": "integer"},
                    "@odata.nextLink": {"type": "string", "format": "uri"},
                    "value": {"type": "array", "items": item if sort == "list" else {}},
                },
            }
        described["content"] = {"application/json": {"schema": item}}
    return described


def _body(operation: Operation, beta: bool) -> dict[str, Any] | None:
    resource, action = operation.resource, operation.action
    if action is not None:
        if action.method == "GET":
            return None
        if action.open:
            return {"type": "object"}
        return _written(action.body, creating=True, opened=False)
    if operation.sort in ("create", "update", "replace"):
        assert resource is not None
        creating = operation.sort != "update"
        if not resource.derived:
            return _written(resource.fields, creating=creating, opened=resource.open)
        return {
            "anyOf": [
                _written(
                    rows.fields_of(resource, name),
                    creating=creating,
                    opened=resource.open,
                    name=name,
                )
                for name in resource.derived
            ]
        }
    if operation.sort in ("add-ref", "set-ref"):
        link = {"type": "string", "format": "uri"}
        return {"type": "object", "required": ["@odata.id"], "properties": {"@odata.id": link}}
    return None


def _written(
    fields: Sequence[Field], *, creating: bool, opened: bool, name: str = ""
) -> dict[str, Any]:
    writable = [item for item in fields if item.writable]
    properties = {item.name: _property(item) for item in writable}
    required = [item.name for item in writable if item.required] if creating else []
    if name:
        properties["@odata.type"] = {"const": f"#microsoft.graph.{name}"}
        required += ["@odata.type"] if creating else []
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    if required:
        schema["required"] = required
    if not opened:
        schema["patternProperties"] = {"@odata\\.bind$": {}}
        schema["additionalProperties"] = False
    return schema


def _property(item: Field) -> dict[str, Any]:
    schema: dict[str, Any] = dict(JSON_TYPES[item.primitive])
    if item.choices:
        schema["enum"] = list(item.choices)
    if item.collection:
        schema = {"type": "array", "items": schema}
    if item.required:
        if schema["type"] == "string" and not item.choices and "format" not in schema:
            schema["minLength"] = 1
        return schema
    if "enum" in schema:
        schema["enum"] = [*schema["enum"], None]
    return {**schema, "type": [schema["type"], "null"]}


def _schemas(resource: Resource, beta: bool) -> dict[str, Any]:
    def of(fields: Sequence[Field]) -> dict[str, Any]:
        return {
            item.name: _read(item) for item in fields if item.readable and (beta or not item.beta)
        }

    whole: dict[str, Any] = {resource.type: {"type": "object", "properties": of(resource.fields)}}
    for name, fields in resource.derived.items():
        base = resource.bases.get(name, resource.type)
        whole[name] = {
            "allOf": [{"$ref": f"#/components/schemas/{base}"}, {"properties": of(fields)}]
        }
    for base in set(resource.bases.values()) - set(whole):
        whole[base] = {"allOf": [{"$ref": f"#/components/schemas/{resource.type}"}]}
    return whole


def _read(item: Field) -> dict[str, Any]:
    if item.primitive is Primitive.COMPLEX and not item.collection:
        schema: dict[str, Any] = {}
    else:
        schema = dict(JSON_TYPES[item.primitive])
        if item.collection:
            schema = {"type": "array", "items": {} if schema == {"type": "object"} else schema}
        else:
            schema["type"] = [schema["type"], "null"]
    return schema if item.writable else {**schema, "readOnly": True}


_ERROR: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message", "innerError"],
            "properties": {
                "code": {"type": "string"},
                "message": {"type": "string"},
                "details": {"type": "array", "items": {"type": "object"}},
                "innerError": {
                    "type": "object",
                    "required": ["date", "request-id", "client-request-id"],
                },
            },
        }
    },
}

# ---------------------------------------------------------------------------------- $metadata


def metadata(frame: Frame, version: str) -> bytes:
    """The model in CSDL 4.0: types, what contains what, actions and functions."""
    beta = version == "beta"
    root = etree.Element(f"{{{_EDMX}}}Edmx", {"Version": "4.0"}, nsmap={"edmx": _EDMX})
    services = etree.SubElement(root, f"{{{_EDMX}}}DataServices")
    schema = etree.SubElement(
        services,
        f"{{{_EDM}}}Schema",
        {"Namespace": "microsoft.graph"},
        nsmap={None: _EDM},  # type: ignore[dict-item]
    )
    types: dict[str, Any] = {}
    _add(schema, "EntityType", Name="entity", Abstract="true")
    key = _add(schema[-1], "Key")
    _add(key, "PropertyRef", Name="id")
    _add(schema[-1], "Property", Name="id", Type="Edm.String", Nullable="false")
    _add(schema, "EntityType", Name="directoryObject", BaseType="graph.entity")
    types["directoryObject"] = schema[-1]
    _add(schema, "ComplexType", Name="Json", OpenType="true")
    for resource in frame.by_type.values():
        _entity_types(schema, types, resource, beta)
    container = etree.Element(f"{{{_EDM}}}EntityContainer", {"Name": "GraphService"})
    for resource in frame.by_path.values():
        _contained(schema, container, types, resource)
    for operation in served(frame):
        if operation.action is not None:
            _bound(schema, types, operation)
    schema.append(container)
    schema.set("Alias", "graph")
    return bytes(etree.tostring(root, xml_declaration=True, encoding="utf-8"))


def _add(parent: Any, element: str, **attributes: str) -> Any:
    return etree.SubElement(parent, f"{{{_EDM}}}{element}", attributes)


def _entity_types(schema: Any, types: dict[str, Any], resource: Resource, beta: bool) -> None:
    base = "graph.directoryObject" if resource.type in ADVANCED else "graph.entity"
    opened = {"OpenType": "true"} if resource.open else {}
    types[resource.type] = _add(schema, "EntityType", Name=resource.type, BaseType=base, **opened)
    _properties(types[resource.type], resource.fields, beta)
    for navigation in resource.navigations:
        target = "graph.directoryObject"
        sort = target if navigation.single else f"Collection({target})"
        _add(types[resource.type], "NavigationProperty", Name=navigation.name, Type=sort)
    waiting = {*resource.derived, *resource.bases, *resource.bases.values()} - {resource.type}
    while waiting:
        ready = sorted(
            n for n in waiting if resource.bases.get(n, resource.type) not in waiting - {n}
        )
        for name in ready or sorted(waiting):
            above = resource.bases.get(name, resource.type)
            if name not in types:
                types[name] = _add(schema, "EntityType", Name=name, BaseType=f"graph.{above}")
                _properties(types[name], resource.derived.get(name, ()), beta)
            waiting.discard(name)


def _properties(element: Any, fields: Sequence[Field], beta: bool) -> None:
    for item in fields:
        if item.name != "id" and item.readable and (beta or not item.beta):
            sort = "graph.Json" if item.primitive is Primitive.COMPLEX else item.primitive.value
            shown = f"Collection({sort})" if item.collection else sort
            _add(element, "Property", Name=item.name, Type=shown)


def _parent(schema: Any, container: Any, types: dict[str, Any], path: str) -> Any:
    """The type that contains what stands at the end of the path: made when it is only a name."""
    above = path.rpartition("/")[0]
    if not above:
        return None
    last = above.rpartition("/")[2]
    if last.startswith("{"):
        return types[last[1:-1]]
    name = last
    if name not in types:
        types[name] = _add(schema, "EntityType", Name=name, BaseType="graph.entity")
        parent = _parent(schema, container, types, above)
        if parent is None:
            _add(container, "Singleton", Name=name, Type=f"graph.{name}")
        else:
            _add(
                parent, "NavigationProperty", Name=name, Type=f"graph.{name}", ContainsTarget="true"
            )
    return types[name]


def _contained(schema: Any, container: Any, types: dict[str, Any], resource: Resource) -> None:
    name, sort = resource.path.rpartition("/")[2], f"graph.{resource.type}"
    parent = _parent(schema, container, types, resource.path)
    if parent is not None:
        shown = sort if resource.singleton else f"Collection({sort})"
        if not any(item.get("Name") == name for item in parent):
            _add(parent, "NavigationProperty", Name=name, Type=shown, ContainsTarget="true")
    elif resource.singleton:
        _add(container, "Singleton", Name=name, Type=sort)
    else:
        _add(container, "EntitySet", Name=name, EntityType=sort)


def _bound(schema: Any, types: dict[str, Any], operation: Operation) -> None:
    action = operation.action
    assert action is not None
    above, _, name = operation.path.rpartition("/")
    if name.startswith("$"):
        return
    kind = "Function" if action.method == "GET" else "Action"
    last = above.rpartition("/")[2]
    bound = last[1:-1] if last.startswith("{") else last
    element = _add(schema, kind, Name=name)
    if bound:
        if bound not in types:
            types[bound] = _add(schema, "EntityType", Name=bound, BaseType="graph.entity")
        element.set("IsBound", "true")
        _add(element, "Parameter", Name="bindingParameter", Type=f"graph.{bound}")
    for item in action.body:
        sort = "graph.Json" if item.primitive is Primitive.COMPLEX else item.primitive.value
        shown = f"Collection({sort})" if item.collection else sort
        _add(element, "Parameter", Name=item.name, Type=shown)
    if kind == "Function":
        _add(element, "ReturnType", Type="graph.Json")
