"""$metadata: the classes as CSDL (OData CSDL XML 4.01), from the descriptions that serve them."""

from collections.abc import Iterable
from typing import Any

from lxml import etree

from tandem.protocols.odata import Primitive
from tandem.site.adminservice.model import Class, Complex, Method, Property

NAMESPACE = "AdminService"
_EDMX = "http://docs.oasis-open.org/odata/ns/edmx"
_EDM = "http://docs.oasis-open.org/odata/ns/edm"


def csdl(classes: Iterable[Class], complexes: Iterable[Complex]) -> bytes:
    root = etree.Element(f"{{{_EDMX}}}Edmx", Version="4.0", nsmap={"edmx": _EDMX})
    services = etree.SubElement(root, f"{{{_EDMX}}}DataServices")
    default: Any = {None: _EDM}
    schema = etree.SubElement(services, f"{{{_EDM}}}Schema", nsmap=default, Namespace=NAMESPACE)
    known = [kind for kind in classes if kind.listed]
    for kind in known:
        _entity(schema, kind)
    for item in complexes:
        made = _add(schema, "ComplexType", Name=item.name)
        if item.base:
            made.set("BaseType", f"{NAMESPACE}.{item.base}")
        if item.abstract:
            made.set("Abstract", "true")
        _properties(made, item.properties)
    for kind in known:
        for method in kind.methods:
            _action(schema, kind, method)
    container = _add(schema, "EntityContainer", Name="Container")
    for kind in known:
        entities = _add(
            container, "EntitySet", Name=kind.name, EntityType=f"{NAMESPACE}.{kind.name}"
        )
        for navigation in kind.navigations:
            _add(
                entities,
                "NavigationPropertyBinding",
                Path=navigation.name,
                Target=navigation.target,
            )
        for method in kind.methods:
            if method.static:
                name = f"{kind.name}.{method.name}"
                _add(container, "ActionImport", Name=name, Action=f"{NAMESPACE}.{method.name}")
    content: bytes = etree.tostring(root, xml_declaration=True, encoding="utf-8")
    return content


def _entity(schema: "etree._Element", kind: Class) -> None:
    made = _add(schema, "EntityType", Name=kind.name)
    key = _add(made, "Key")
    for name in kind.key:
        _add(key, "PropertyRef", Name=name)
    _properties(made, kind.properties)
    for navigation in kind.navigations:
        _add(
            made,
            "NavigationProperty",
            Name=navigation.name,
            Type=f"{NAMESPACE}.{navigation.target}",
        )


def _action(schema: "etree._Element", kind: Class, method: Method) -> None:
    made = _add(schema, "Action", Name=method.name)
    if not method.static:
        made.set("IsBound", "true")
        _add(made, "Parameter", Name="this", Type=f"{NAMESPACE}.{kind.name}")
    for parameter in method.parameters:
        _add(made, "Parameter", Name=parameter.name, Type=type_of(parameter))


def _properties(parent: "etree._Element", properties: Iterable[Property]) -> None:
    for item in properties:
        _add(parent, "Property", Name=item.name, Type=type_of(item))


def type_of(item: Property) -> str:
    one = f"{NAMESPACE}.{item.complex}" if item.complex else item.primitive.value
    if item.primitive is Primitive.COMPLEX and not item.complex:
        one = "Edm.Untyped"
    return f"Collection({one})" if item.many else one


def _add(parent: "etree._Element", name: str, **attributes: str) -> "etree._Element":
    return etree.SubElement(parent, f"{{{_EDM}}}{name}", attributes)
