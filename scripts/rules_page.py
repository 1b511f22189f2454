"""Writes docs/findings.md from the docstrings of the rules: ``python scripts/rules_page.py``."""

from __future__ import annotations

import inspect
import re
import textwrap
from dataclasses import MISSING, fields
from pathlib import Path

from stepscope.analysis import RULES, Rule

PAGE = Path(__file__).resolve().parent.parent / "docs" / "findings.md"
INTRODUCTION = """\
# Findings

`stepscope doctor`, `stepscope.analysis.diagnose(trial)` and the dashboard look for what follows. Every threshold is a
setting: `diagnose(trial, settings={"dead-units": {"share": 0.7}})`. What one finding explains stands under it; the
first ones explain most.

## How good they are

`make bench-findings` trains 814 small broken runs, which were written from published collections of bugs and from
reports without looking at the rules (`stepscope.examples.broken`), with their fixed twins and 192 healthy runs. Those
in `held_back/` are measured once before anybody who writes rules reads them. A set that was read becomes open, and
somebody else writes a new one. A cause counts if one of the first three findings tells it, a place if one of them
names the right node or one directly connected to it. A false alarm is any warning or error on a fixed twin or a
healthy run.

| until 2026-11-23 | cause in the first three | right place | right line | right first step | false alarms |
|---|---|---|---|---|---|
| 38 of the first 122 runs, held back, with 64 rules | 23 of 38 | 26 of 38 | 5 of 17 | 2 of 2 | 0 of 45 |
| a new set of 55, held back, with 76 rules | 28 of 55 | 35 of 55 | 9 of 30 | 1 of 4 | 1 of 67 |
| of 81, with 85 rules | 26 of 81 | 44 of 81 | 9 of 37 | 8 of 28 | 15 of 98 |
| of 78, with 103 rules | 35 of 78 | 45 of 78 | 12 of 37 | 2 of 6 | 9 of 93 |
| of 48, with 113 rules | 26 of 48 | 32 of 48 | 4 of 10 | 1 of 4 | 2 of 60 |
| of 42, with 119 rules | 15 of 42 | 25 of 42 | 4 of 12 | 2 of 3 | 5 of 52 |
| of 37, with 120 rules | 15 of 37 | 22 of 37 | 5 of 11 | 1 of 3 | 2 of 47 |
| of 36, with 123 rules | 20 of 36 | 24 of 36 | 4 of 14 | 1 of 2 | 1 of 46 |
| of 38, with 128 rules | 20 of 38 | 28 of 38 | 6 of 15 | 6 of 10 | 3 of 48 |
| of 40, with 130 rules | 23 of 40 | 30 of 40 | 4 of 9 | 3 of 4 | 1 of 50 |
| of 40 others, with 133 rules | 24 of 40 | 30 of 40 | 10 of 20 | 4 of 7 | 2 of 50 |
| of 24, half of them by dice, with 140 rules | 20 of 24 | 19 of 24 | 2 of 10 | 3 of 3 | 4 of 32 |
| of 39 others, half of them by dice, with 140 rules | 27 of 39 | 32 of 39 | 7 of 17 | 1 of 1 | 3 of 49 |
| of 37 others, half of them by dice, with 147 rules | 21 of 37 | 24 of 37 | 6 of 11 | | 5 of 47 |
| of 20 others, all by dice, with 148 rules | 9 of 20 | 12 of 20 | 2 of 4 | 0 of 1 | 2 of 25 |
| of 20 others, from questions, with 149 rules | 11 of 20 | 15 of 20 | 4 of 8 | 0 of 1 | 3 of 25 |
| of 20 others, by dice, with 150 rules | 12 of 20 | 10 of 20 | 0 of 3 | 1 of 1 | 1 of 25 |
| of 16 others, from questions, with 151 rules | 7 of 16 | 10 of 16 | 0 of 10 | 1 of 1 | 2 of 21 |
| the 738 looked at before those 76, with 149 rules | 656 of 738 | 658 of 738 | 181 of 297 | 74 of 92 | 2 of 910 |

So of mistakes that no rule was tuned to, expect a good half to be told, and the place of two thirds: of the 113 of the
last five sets 60 were, and 71 of the places; of those 60 by dice from the published collections 34, and of those 53
that people asked about 26. The sets differ: the authors of those of 55 and of 81 had been asked for what was not
there yet. For the set of 78, three authors, who knew no rule, searched for what people ask whose network trains badly,
and took every report whose cause was revealed and could be made small, in the order in which they came (`drawn_*.md`
lists all that were looked at). For the 48, two others went through the published collections (TrainCheck, UMLAUT,
SageMaker Debugger, DeepLocalize, DeepFD, AutoTrainer, the taxonomy of Humbatova et al. and others), entry by entry in
their order, each as a new program (`collected_*.md`). Of the 42, 20 are Karpathy's lists of mistakes, entry by entry
(`listed_practice.md`), and 22 the first report with a revealed cause in each of 24 fields (`drawn_fields.md`). The 37
go on with Ivanov's list (`handed_down.md`) and other fields (`more_fields.md`), the 36 with Tobin's
(`told_in_courses.md`) and further fields (`further_fields.md`), the 38 with Roberts, ganhacks, Google's course and
PyTorch's own pages (`noted_by_teachers.md`) and with the first report of each of 24 symptoms (`asked_by_symptoms.md`).
The first 40 go on with the published collections where those of the 48 ended (`published_faults.md`), and with what
books and courses warn of (Hugging Face's, CS231n, Jones, the details of PPO, Google's playbook, Goodfellow et al.;
`warned_in_books.md`). The authors of the newest 40 did not know which mistakes other sets have, nor avoid them: they
took the first report with a revealed cause of each of 48 searches, in questions (`answered_questions.md`) and in what
projects mended (`mended_in_projects.md`). Nor did those of the 24: twelve are the first reports of as many searches
(`puzzled_about.md`); for the other twelve dice drew an entry of a published collection (Humbatova et al., AutoTrainer,
DeepLocalize and DeepFD, DeepDiagnosis, UMLAUT, SageMaker Debugger, TrainCheck, in turn) and an architecture for it
(`cast_by_dice.md`). Of either twelve ten were told. The 39 were drawn the same two ways: 20 by dice
(`drawn_by_dice.md`, 15 told, nobody accused), 19 from searches (`wondered_about.md`, 12 told); and so were the 37: 20
by dice (`rolled_by_dice.md`, 13 told), 17 from other searches (`sought_after.md`, 8 told). The newest four sets have
one way each: dice (`thrown_by_dice.md`, `shaken_by_dice.md`) or searches (`brought_up_by_users.md`,
`heard_from_users.md`). Names and first sentences of the rules were read for the answers only, after the runs had been
written; of three of the 36 whoever wrote the rules saw a line before the measurement. By a warning or an error are told
567 of the 656 (of the newest 39: 32), the others by a note of level info, of which 173 of the 910 open runs without a
mistake have one, too.

The misses and false alarms of the newest 56 were looked at after that: with 152 rules 40 are told, 38 of the places,
and two of 71 are accused (a layer that died, an overfitting). Before, a normalisation that three inputs share was
accused of running statistics that do not fit, embeddings of a contrastive loss of being flat scores, a policy's loss of
a plateau, a guard behind a sigmoid of a missing sigmoid, and targets that are numbered otherwise in a validation of
another scale. What is not told, mostly no recorded number shows: an environment or a label that is another one than was
meant, weights that were not loaded, a validation that ends a training too early. 281 of the broken runs that had been
looked at, 20 of those from questions among them, and 844 runs without a mistake were recorded anew: of the 281 five
more are told than by the rules of the day before, all five of those 20, none is lost but a place that a wrong finding
had named, and two are accused instead of six.
What is in `held_back/` now is no longer unseen, and the figures above are those from before. Of the open fixed twins
two are accused: one rightly (it is never told to evaluate), one of an overfitting that is noise. A line counts as right
if it is one of the statement that is to be edited (until the set of 48: that line). Of the 297 lines of the open runs
181 are named, and 219 stand within the two lines before or after a named one, which the dashboard shows with it. Then
the lines were looked at, of 157 of these runs whose recordings were at hand: 86 were named, and are 95 since a target
that a step makes, an operation whose gradient is infinite, and the call beside which a module is missed name theirs.

### Common faults in many networks

`python benchmarks/bench_seeded.py --held-back` plants the faults of published mutation operators and lists (DeepCrime,
DeepMutation, AutoTrainer and others; 73 of them, written by somebody who knew no rule) at random into sound trainings:
fixed twins and healthy runs. A fault counts if it does harm: if the trained model has learned at least 30% less than
without it. Of the 457 trainings 159 are held back: rules were mended by what was said of faults in the others only.

| 2026-11-23 | cause in the first three | by a warning or an error | right place |
|---|---|---|---|
| 55 from the open trainings, before most was mended | 42 of 55 | | 45 of 55 |
| 165 from those that are held back, after | 144 of 165 | 131 of 165 | 146 of 165 |
| 169, with the losses' faults planted right | 150 of 169 | 137 of 169 | 148 of 169 |
| 57 of another draw (`--draw 7 --number 73`), with 119 rules | 52 of 57 | 47 of 57 | 53 of 57 |
| 60 of a third draw (`--draw 8 --number 73`), with 130 rules | 52 of 60 | 45 of 60 | 54 of 60 |
| 58 of a fourth draw (`--draw 9 --number 73`), with 132 rules | 53 of 58 | 49 of 58 | 54 of 58 |
| 63 of a fifth draw (`--draw 10 --number 73`), with 135 rules | 58 of 63 | 52 of 63 | 58 of 63 |
| 63 of a sixth draw (`--draw 11 --number 73`), with 145 rules | 56 of 63 | 50 of 63 | 60 of 63 |
| 63 of a seventh draw (`--draw 12 --number 73`), with 151 rules | 55 of 63 | 48 of 63 | 57 of 63 |

Of the 364 of the draws with a number 326 were told (90%), and 336 of the places (92%). In the first draw of 165, a
patched loss function had another name than torch's own, so that no rule knew which loss
it was; the faults of losses were drawn again after that was mended.

A diagnosis took 0.15 to 0.23 s (means, at a load of 2). A line is right if it is the one to be edited; mistakes in
setting up a run have none within a step, and are left out there.

A `LiveDoctor` works in a process of its own: beside a training that records every tenth step, the training process
spent 0.5% more processor time and 1.3% more by the clock (`python benchmarks/bench_live.py`, measured while two cores
had a load of 6).

This page is written by `python scripts/rules_page.py`; a test fails if it is not up to date."""


def render() -> str:
    """The whole page."""
    contents = "\n".join(f"- [{name}](#{name}): {_first_line(rule)}" for name, rule in RULES.items())
    return "\n\n".join([INTRODUCTION, contents, *(_section(name, rule) for name, rule in RULES.items())]) + "\n"


def _first_line(rule: type[Rule]) -> str:
    return " ".join(inspect.cleandoc(rule.__doc__ or "").split("\n\n")[0].split())


def _section(name: str, rule: type[Rule]) -> str:
    text = inspect.cleandoc(rule.__doc__ or "")
    body, _, thresholds = text.partition("Attributes:\n")
    paragraphs = [re.sub(r"^(Symptom|How it is measured|Causes|Remedy|Source)s?:", r"**\1.**", p.strip())
                  for p in body.strip().split("\n\n")]  # fmt: skip
    lines = [f"## {name}", *(_plain(paragraph) for paragraph in paragraphs)]
    if thresholds.strip():
        lines.append(_settings(rule, thresholds))
    return "\n\n".join(lines)


def _settings(rule: type[Rule], text: str) -> str:
    defaults = {field.name: field.default for field in fields(rule) if field.default is not MISSING}
    rows = ["| setting | default | |", "|---|---|---|"]
    for entry in re.split(r"\n(?=\S)", textwrap.dedent(text).strip()):
        names, _, meaning = entry.partition(":")
        shown = ", ".join(
            f"`{_value(defaults[name.strip()])}`" for name in names.split(",") if name.strip() in defaults
        )
        rows.append(f"| `{names.strip()}` | {shown} | {_plain(meaning.strip())} |")
    return "\n".join(rows)


def _value(default: object) -> str:
    return f"{default:g}" if isinstance(default, float) else str(default)


def _plain(text: str) -> str:
    """Single backticks, as Markdown wants them, and no line breaks."""
    return " ".join(text.replace("``", "`").split()).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(render())
