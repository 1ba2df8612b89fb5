"""The metrics of several workers as one text: every sample carries the number of its worker."""

import re
from collections.abc import Mapping

_UP = "# HELP hydrasms_worker_up Whether a worker has told its metrics.\n# TYPE hydrasms_worker_up gauge\n"
_HELP = "# HELP "
_NAME = re.compile(r"[^{ ]+")


def merged(reports: Mapping[int, str | None]) -> bytes:
    """Return one exposition of those of several workers; None stands for one that has not answered."""
    samples = {_HELP + "hydrasms_worker_up": [_UP]}
    for number, report in sorted(reports.items()):
        samples[_HELP + "hydrasms_worker_up"].append(
            f'hydrasms_worker_up{{worker="{number}"}} {int(report is not None)}\n'
        )
        family: list[str] = []
        for line in (report or "").splitlines(keepends=True):
            if line.startswith(_HELP):
                # All samples of a family stand together, whoever they are from, below its heading.
                name = " ".join(line.split(" ", 3)[:3])
                is_new = name not in samples
                family = samples.setdefault(name, [])
                if is_new:
                    family.append(line)
            elif line.startswith("#"):
                if len(family) == 1:
                    family.append(line)
            else:
                family.append(_of_worker(line, number))
    return "".join(line for family in samples.values() for line in family).encode()


def _of_worker(sample: str, number: int) -> str:
    found = _NAME.match(sample)
    assert found is not None
    name, rest = found.group(), sample[found.end() :]
    if rest.startswith("{"):
        return f'{name}{{worker="{number}",{rest[1:]}'
    return f'{name}{{worker="{number}"}}{rest}'
