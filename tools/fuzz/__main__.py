"""python -m tools.fuzz [--seconds N] [TARGET …], or --file PATH TARGET to run one input again."""

import argparse
import importlib
import subprocess
import sys
from pathlib import Path

from tools.fuzz import mutation

# Where inputs that told something new are kept, and those that failed.
FOLDER = Path("build/fuzz")
_PROTOCOLS = ("soap", "syncml", "tunnel", "token", "front")
_FILES = ("csr", "cms", "ddf", "msi", "cabinet", "client")
NAMES = (*_PROTOCOLS, *_FILES, "device")
_INSTRUMENTED = ["tandem", "olefile", "asn1crypto", "joserfc"]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(NAMES))
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--file", type=Path, help="run the target on this input alone")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    unknown = set(given.targets) - set(NAMES)
    if unknown:
        parser.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    if given.file is not None:
        for name in given.targets:
            _target(name)(given.file.read_bytes())
        return 0
    if given.here:
        _fuzz(given.targets[0], given.seconds)
    failed = []
    for name in given.targets or NAMES:
        print(f"== {name}, {given.seconds} s", flush=True)
        command = [
            sys.executable,
            "-m",
            "tools.fuzz",
            "--here",
            "--seconds",
            str(given.seconds),
            name,
        ]
        if subprocess.run(command).returncode:
            failed.append(name)
    for name in failed:
        print(f"{name} failed; again: python -m tools.fuzz {name} --file {FOLDER}/{name}-crash-…")
    return 1 if failed else 0


def _target(name: str):  # type: ignore[no-untyped-def]
    return importlib.import_module("tools.fuzz.targets").TARGETS[name]


def _fuzz(name: str, seconds: int) -> None:
    """Runs until the time is over or something fails, and ends the process."""
    try:
        import atheris
    except ModuleNotFoundError:
        sys.exit(
            "There is no atheris here: pip install --require-hashes -r tools/fuzz/requirements.txt"
        )
    with atheris.instrument_imports(include=_INSTRUMENTED):
        targets = importlib.import_module("tools.fuzz.targets")
    corpus = FOLDER / name
    corpus.mkdir(parents=True, exist_ok=True)
    options = [
        *(str(corpus), str(targets.SEEDS / name)),
        *(f"-max_total_time={seconds}", f"-max_len={targets.MAX_BYTES}", "-timeout=10"),
        *("-rss_limit_mb=1500", "-print_final_stats=1", f"-artifact_prefix={FOLDER}/{name}-"),
    ]

    def bent(data: bytes, most: int, seed: int) -> bytes:
        found = mutation.bend(data, seed) if seed % 4 else None
        kept: bytes = found if found and len(found) <= most else atheris.Mutate(data, most)
        return kept

    more = {"custom_mutator": bent} if name in mutation.XML else {}
    atheris.Setup([sys.argv[0], *options], targets.TARGETS[name], **more)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
