"""How often common faults are found that are planted at random into sound trainings.

    python benchmarks/bench_seeded.py                              # 300 of them, from the open trainings
    python benchmarks/bench_seeded.py --held-back                  # from trainings whose faults nobody has looked at
    python benchmarks/bench_seeded.py --only gradients_not_cleared # one fault, with what is said of it
    python benchmarks/bench_seeded.py --number 1000 --draw 1       # others

Each fault has its equal share. One that does no harm (see ``stepscope.examples.broken.seeded``) is not counted: another
is drawn in its place.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

import torch
from scoring import FIRST, neighbours, tells
from table import markdown

from stepscope.analysis import diagnose
from stepscope.examples.broken.seeded import BASES, FAULTS, HELD_BACK, Fault, Seeded, seed
from stepscope.examples.broken.seeded.seeding import Outcome, learned
from stepscope.store import Trial, open_trial

NUMBER = 300
POOL = 60
"""Trainings that one draw takes its bases from: what each learns without a fault has to be found out first."""
TRIES = 4
"""Bases that are tried for each that is wanted: some have no place for a fault, in others it does no harm."""


@dataclass(frozen=True)
class Score:
    """What the findings say of a planted fault."""

    fault: str
    base: str
    rank: int | None
    warned: bool
    localised: bool
    nodes: list[str]
    told: str

    @property
    def in_top(self) -> bool:
        return self.rank is not None and self.rank <= FIRST


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--number", type=int, default=NUMBER, help=f"how many are drawn (default: {NUMBER})")
    parser.add_argument("--draw", type=int, default=0, help="which draw (default: 0)")
    parser.add_argument("--held-back", action="store_true", help="take the trainings that are held back")
    parser.add_argument("--only", nargs="+", choices=[*FAULTS], metavar="FAULT", help="these faults only")
    parser.add_argument("--folder", type=Path, help="keep the recordings there")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    bases = sorted(name for name in BASES if (name in HELD_BACK) == options.held_back)
    faults = [FAULTS[name] for name in options.only or FAULTS]
    with tempfile.TemporaryDirectory() as temporary:
        bench = Bench(options.folder or Path(temporary), bases, options.draw)
        share = -(-options.number // len(faults))
        scores = [score for fault in faults for score in bench.scores(fault, share)]
    show(scores, with_each=not options.held_back or bool(options.only))
    return 0


class Bench:
    """Plants faults, and judges what is said of them."""

    def __init__(self, folder: Path, bases: list[str], draw: int) -> None:
        self._folder, self._draw = folder, draw
        self._bases = Random(draw).sample(bases, min(POOL, len(bases)))
        self._sound: dict[str, Outcome] = {}

    def scores(self, fault: Fault, wanted: int) -> Iterator[Score]:
        """Of so many trainings to which the fault does harm, if there are as many among those that are tried."""
        drawn = Random(f"{fault.name} {self._draw}").sample(self._bases, min(len(self._bases), TRIES * wanted))
        found = 0
        for name in drawn:
            if found < wanted and (score := self._score(fault, name)) is not None:
                found += 1
                print(json.dumps(asdict(score)), file=sys.stderr, flush=True)
                yield score

    def _score(self, fault: Fault, base: str) -> Score | None:
        sound = self._learned(base)
        seeded = seed(BASES[base], fault, sound, self._folder) if sound.has_learned else None
        return self._judge(seeded) if seeded is not None and seeded.does_harm else None

    def _learned(self, base: str) -> Outcome:
        if base not in self._sound:
            self._sound[base] = learned(BASES[base], self._folder)
        return self._sound[base]

    def _judge(self, seeded: Seeded) -> Score:
        trial = open_trial(self._folder / seeded.base / seeded.fault.name)
        findings = diagnose(trial)
        first = findings[:FIRST]
        near = neighbours(trial, _places(trial, seeded.nodes))
        return Score(
            fault=seeded.fault.name,
            base=seeded.base,
            rank=next((place for place, found in enumerate(findings, 1) if tells(seeded.fault, found)), None),
            warned=any(found.level != "info" and tells(seeded.fault, found) for found in first),
            localised=any({found.node, *found.nodes} & near for found in first),
            nodes=list(seeded.nodes)[:6],
            told="; ".join(f"{found.level} {found.rule} at {found.node or 'no node'}" for found in first) or "nothing",
        )


def _places(trial: Trial, nodes: Iterable[str]) -> set[str]:
    """Nodes with what else they may be called: the layer of a parameter; the inputs where several models have some."""
    types = {node.name: node.type for node in trial.nodes}
    found = set(nodes)
    found |= {node.rpartition(".")[0] for node in found if types.get(node) == "parameter"}
    return found | {name for name, type_ in types.items() if type_ in found and type_ not in types}


def show(scores: Sequence[Score], *, with_each: bool) -> None:
    """Print one line for each fault, the sums, and, if wanted, what was said of each that was not told."""
    faults = Counter(score.fault for score in scores)
    rows = [_sums(name, [score for score in scores if score.fault == name]) for name in faults]
    rows.append(_sums("all", scores))
    print(markdown(("fault", "does harm", "in top 3", "as warning or error", "localised"), rows))
    for score in scores:
        if with_each and not score.in_top:
            print(f"- {score.fault} in {score.base}: {score.told}")


def _sums(name: str, scores: Sequence[Score]) -> tuple[str, ...]:
    counts = (sum(s.in_top for s in scores), sum(s.warned for s in scores), sum(s.localised for s in scores))
    return (name, str(len(scores)), *map(str, counts))


if __name__ == "__main__":
    sys.exit(main())
