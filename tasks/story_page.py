"""Page: a story as one HTML file that needs nothing else, no network and no script, for whoever is woken by it."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from html import escape
from typing import TYPE_CHECKING

from tasks.places import Places
from tasks.report import finding_rows
from tasks.story import Step, Story

if TYPE_CHECKING:
    from tasks.canvas import Picture

_STYLE = """
:root { color-scheme: light dark; --line: #8886; --good: #009e73; --bad: #d55e00; --unsure: #b8860b; --plain: #888; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.6rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
.fate { font-size: 1.2rem; margin: .3rem 0 1rem; } .faint { opacity: .75; font-size: .9rem; }
ol { list-style: none; padding: 0; margin: 0; }
.step { border-left: .35rem solid var(--plain); padding: .1rem 0 .1rem .9rem; margin: 0 0 1.1rem; }
.good { border-color: var(--good); } .bad { border-color: var(--bad); } .unsure { border-color: var(--unsure); }
.step h3 { font-size: 1.02rem; margin: 0; } .step p { margin: .15rem 0; overflow-wrap: anywhere; }
table { border-collapse: collapse; margin: .4rem 0; font-size: .88rem; }
td, th { border-bottom: 1px solid var(--line); padding: .2rem .6rem .2rem 0; text-align: left; vertical-align: top; }
td:not(:last-child) { white-space: nowrap; }
figure { margin: .6rem 0; } img { max-width: min(100%, 46rem); height: auto; background: white; border-radius: .2rem; }
figcaption { font-size: .88rem; opacity: .75; } summary { cursor: pointer; }
"""
# Even if something got through unescaped, nothing on the page may run or load.
_POLICY = """<meta http-equiv="Content-Security-Policy"
content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">"""
_CHECKED = """<p class="faint">Told from the ledger alone. Whether every row is as it was written, and every verdict
follows from its evidence, says <code>python -m tasks.audit {}</code>.</p>"""
_MARKS = {"good": "✓", "bad": "✗", "unsure": "?", "plain": "·"}
_HEADERS = ("check", "outcome", "value", "limit", "n", "in words")


def page(story: Story, pictures: Mapping[str, tuple[Picture, ...]], places: Places) -> str:
    """The whole page. Whatever a user wrote is shown as it is, and never read as HTML.

    Args:
        story: To be told.
        pictures: By the digest of the evidence that they show.
        places: For the links, where servers are known.
    """
    name = story.model if story.version is None else f"{story.model} version {story.version}"
    return "\n".join(
        (
            '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">',
            _POLICY,
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(name)}</title><style>{_STYLE}</style></head><body>",
            f'<h1>{escape(name)}</h1><p class="fate">{escape(story.fate)}</p>',
            f'<p class="faint">{_origin(story, places)}</p>',
            "<h2>What happened, the oldest first (UTC)</h2><ol>",
            *(part for step in story.steps for part in _step(step, pictures, places)),
            "</ol>",
            "" if story.complete else "<p>There is more than is told here; the ledger has it all.</p>",
            _CHECKED.format(escape(story.model)),
            "</body></html>\n",
        )
    )


def _origin(story: Story, places: Places) -> str:
    parts = [f"trail <code>{escape(story.trail)}</code>", f"in Production now: {escape(story.production or 'nothing')}"]
    if story.version is not None and (address := places.version(story.model, story.version)):
        parts.append(_link(address, "version in MLflow"))
    if story.run_id is not None:
        run = escape(story.run_id)
        address = places.run(story.run_id)
        parts.append(_link(address, "run in MLflow") if address else f"MLflow run <code>{run}</code>")
    return " · ".join(parts)


def _step(step: Step, pictures: Mapping[str, tuple[Picture, ...]], places: Places) -> Iterator[str]:
    yield f'<li class="step {step.mark}"><h3>{_MARKS[step.mark]} {escape(step.title)}</h3>'
    who = f" · by {escape(step.who)}" if step.who else ""
    run = _link(places.flow_run(step.flow_run_id), "flow run") if step.flow_run_id else ""
    yield f'<p class="faint">{step.at:%Y-%m-%d %H:%M:%S}{who}{f" · {run}" if run else ""}</p>'
    yield f"<p>{escape(step.text)}</p>"
    if step.details:
        told = " · ".join(f"{escape(name)}: {escape(value)}" for name, value in step.details)
        yield f'<p class="faint">{told}</p>'
    if step.verdict is not None and step.verdict.findings:
        rows = [_row(cells, "td") for cells in finding_rows(step.verdict)]
        table = "".join((_row(_HEADERS, "th"), *rows))
        # What decided against something is read at once; what is in order is there for who wants to see it.
        opened = " open" if step.mark in {"bad", "unsure"} else ""
        yield f"<details{opened}><summary>{len(rows)} findings</summary><table>{table}</table></details>"
    yield from (_figure(picture) for picture in pictures.get(step.evidence or "", ()))
    yield "</li>"


def _row(cells: tuple[str, ...], tag: str) -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"


def _figure(picture: Picture) -> str:
    data = base64.b64encode(picture.png).decode("ascii")
    caption = escape(picture.caption)
    return (
        f'<figure><img alt="{caption}" src="data:image/png;base64,{data}"><figcaption>{caption}</figcaption></figure>'
    )


def _link(address: str | None, told: str) -> str:
    return f'<a href="{escape(address)}" rel="noreferrer">{escape(told)}</a>' if address else ""
