"""python -m tests.faults: faults on the running lab, drawn from a seed, under load, judged.

  python -m tests.faults --number 40 --seed 7           forty of all kinds, every fifth time two at once
  python -m tests.faults --fault kill-postgres --number 20
  python -m tests.faults --list                         what there is
  python -m tests.faults --heal                         undoes whatever a run left that was killed

Exit status: 0 nothing was violated, 1 something was, 2 it could not begin.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import time
from collections.abc import Sequence

from tests.faults import actions, plan, report
from tests.faults.campaign import OUT, Campaign
from tests.faults.catalogue import find
from tests.faults.nemesis import NotWhole, Stopped
from tests.faults.nodes import NodeError, Nodes, NotOurs
from tests.lab.support import Lab
from tests.load.server import Refused


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--number", type=int, default=20, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="gives the same run again; drawn and said unless given")
    parser.add_argument("--fault", action="append", default=[], metavar="NAME", help="only this one; may be repeated")
    parser.add_argument("--list", action="store_true", help="say what there is")
    parser.add_argument("--heal", action="store_true", help="undo whatever may be left of earlier runs")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> int:
    """Run a plan, round by round."""
    seed = secrets.randbelow(1_000_000) if options.seed is None else options.seed
    for name in options.fault:
        find(name)
    steps = plan.steps(seed, options.number, options.fault)
    began = time.strftime("%Y%m%d-%H%M%S")
    print(f"faults: {len(steps)} with seed {seed}, into {OUT}", flush=True)
    results = []
    for number, part in enumerate(plan.rounds(steps), 1):
        campaign = Campaign(f"{began}-{seed}-{number}", seed=seed)
        results.append(campaign.run(part))
        if any("the run ended before its time" in one for one in results[-1]["violations"]):
            break
    if len(results) > 1:
        (OUT / f"{began}-{seed}.md").write_text(report.markdown(results), encoding="utf-8")
    print(report.markdown(results))
    return 1 if any(result["violations"] for result in results) else 0


def main(arguments: Sequence[str]) -> int:
    """Do what was asked for."""
    options = parse(arguments)
    if options.list:
        print(report.catalogue(), end="")
        return 0
    try:
        if options.heal:
            problems = actions.sweep(Nodes(Lab().state))
            print("\n".join(problems) or "nothing is left of any fault")
            return 1 if problems else 0
        return run(options)
    except Stopped as signal:
        print(f"faults: stopped by {signal}; everything was healed", file=sys.stderr)
        return 1
    except (LookupError, NodeError, NotOurs, NotWhole, Refused, OSError) as error:
        print(f"faults: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
