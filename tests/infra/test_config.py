from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.infra import config


class Inner(config.Settings):
    name: str = ""
    port: int = 0


class Outer(config.Settings):
    title: str
    enabled: bool = False
    rate: float = 1.0
    folder: Path | None = None
    words: list[str] = []
    inner: Inner = Inner()
    many: list[Inner] = []


text = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=20)
inners = st.builds(Inner, name=text, port=st.integers(-(2**60), 2**60))


@given(
    st.builds(
        Outer,
        title=text,
        enabled=st.booleans(),
        rate=st.floats(allow_nan=False, allow_infinity=False),
        folder=st.none() | st.just(Path("/var/lib/tandem")),
        words=st.lists(text),
        inner=inners,
        many=st.lists(inners),
    )
)
def test_what_is_dumped_is_loaded_again(
    tmp_path_factory: pytest.TempPathFactory, it: Outer
) -> None:
    file = tmp_path_factory.mktemp("settings") / "a.toml"
    file.write_bytes(config.dump(it).encode())
    assert config.load(file, Outer) == it


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("title = 'a'\ncolour = 1", "colour"),
        ("title = 5", "title"),
        ("title = ", "TOML"),
        ("title = 'a'\n[inner]\nport = 'x'", "port"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, content: str, named: str) -> None:
    file = tmp_path / "a.toml"
    file.write_text(content)
    with pytest.raises(config.BadSettings, match=named):
        config.load(file, Outer)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(config.BadSettings, match="does not exist"):
        config.load(tmp_path / "none.toml", Outer)
