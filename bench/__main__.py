"""`python -m bench [all|NAME…]`: run, write bench/out/NAME.json, print a table."""

import importlib
import sys

from bench import figures

NAMES = (
    "lab",
    "graph",
    "console",
    "mdm",
    "site",
    "checkin",
    "cadence",
    "switch",
    "month",
    "gateway",
    "crowd",
)


def main() -> int:
    wanted = sys.argv[1:] or ["all"]
    names = NAMES if "all" in wanted else tuple(wanted)
    reached = True
    for name in names:
        if name not in NAMES:
            sys.stderr.write(f"There is no benchmark {name}. There are: {', '.join(NAMES)}.\n")
            return 2
        outcome = importlib.import_module(f"bench.{name}").run()
        path = figures.write(name, outcome)
        figures.document(name, outcome)
        sys.stdout.write(f"{name}: {outcome.load}\n")
        for figure in outcome.figures:
            mark = {True: "ok", False: "MISSED", None: ""}[figure.ok]
            ratio = f" = {figure.ratio:g} x {figure.peer}" if figure.ratio is not None else ""
            sys.stdout.write(
                f"  {figure.name:<60} {figure.value:>10g} {figure.unit:<6}"
                f" {figure.reach or '':<8} {mark}{ratio}\n"
            )
            reached = reached and figure.ok is not False
        sys.stdout.write(f"  {path}\n")
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
