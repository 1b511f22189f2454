"""Run as a script with an address: writes steps to it without end, and prints the number of each once it is written."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.remote import RECORDS, new_writer


def main(address: str) -> None:
    writer = new_writer(address)
    number = 0
    while True:
        writer.write_step(replace(RECORDS[number % len(RECORDS)], number=number))
        print(number, flush=True)
        number += 1


if __name__ == "__main__":
    main(sys.argv[1])
