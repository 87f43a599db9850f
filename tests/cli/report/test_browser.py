"""The page in a browser: its table, details, themes and keys work, without a request or complaint.

Tests are skipped where no Chromium is installed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import planc
from planc.ir.groups import Member, Run
from planc.plan.plan import AttributeChange, ModuleSpec, Plan, PlanGroup, TensorSpec
from tests.support.browser import Browser, executable, started
from tests.support.strategies import complete

FOUND = executable()
pytestmark = pytest.mark.skipif(FOUND is None, reason="no Chromium is installed")
HOSTILE = "</script><img src=x onerror=alert(1)><b>bold</b>"


def chain(*removed: int, scores: bool = False) -> Plan:
    """Linear layers in a row; the hidden width after layer i loses its first units."""
    sizes = [8 * (i + 1) for i in range(len(removed))]
    tensors, groups, modules = [], [], []
    for i, (size, count) in enumerate(zip(sizes, removed, strict=True)):
        tensors.append(
            TensorSpec((f"net.{i}.weight",), (size, sizes[i - 1] if i else 3), "parameter")
        )
        modules.append(ModuleSpec(f"net.{i}", (("class", "Linear"), ("out_features", size))))
        run = (Run(0, size, 0, 1),)
        members = [Member(f"net.{i}.weight", 0, run)]
        if i + 1 < len(sizes):
            members.append(Member(f"net.{i + 1}.weight", 1, run))
        groups.append(
            PlanGroup(
                f"net.{i}.weight:0",
                "heads" if i == 1 else "features",
                size,
                1,
                tuple(members),
                HOSTILE if i == 1 else "",
                tuple(range(count)),
                np.arange(size, dtype="<f4").tobytes() if scores else None,
            )
        )
    changes = tuple(
        AttributeChange(f"net.{i}", "out_features", size, size - count)
        for i, (size, count) in enumerate(zip(sizes, removed, strict=True))
        if count
    )
    return complete(tuple(tensors), tuple(modules), tuple(groups), changes)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert FOUND is not None
    with started(FOUND, tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture
def page(browser: Browser, tmp_path: Path) -> Iterator[Browser]:
    """The page of a plan with scores; at the end it has made no request and no complaint."""
    planc.report(chain(4, 8, 0, 16, scores=True), out=tmp_path / "page.html", names=[HOSTILE])
    browser.open(tmp_path / "page.html")
    yield browser
    assert browser.complaints == []
    assert all(url.startswith("file:") and url.endswith(".html") for url in browser.requests)
    assert len(browser.requests) == 1


SHOWN = "[...document.querySelectorAll('#table tbody tr.row')].filter(row => !row.hidden)"


def names(page: Browser) -> list[str]:
    """Numbers of the shown groups, from top to bottom."""
    found: list[str] = page.run(f"{SHOWN}.map(row => row.querySelector('code').textContent)")
    return [name.split(".")[1] for name in found]


def click(page: Browser, selector: str) -> None:
    event = "new MouseEvent('click', {bubbles: true})"  # drawings have no method click
    page.run(f"document.querySelector({selector!r}).dispatchEvent({event})")


def test_the_table_is_sorted_by_a_click_on_its_headings(page: Browser) -> None:
    assert names(page) == ["0", "1", "2", "3"]
    heading = "#table th[data-key='4']"
    click(page, f"{heading} button")
    assert names(page) == ["0", "1", "3", "2"]
    assert page.run(f'document.querySelector("{heading}").ariaSort') == "descending"
    click(page, f"{heading} button")
    assert names(page) == ["2", "0", "1", "3"]
    click(page, f"{heading} button")
    assert names(page) == ["0", "1", "2", "3"]
    click(page, "#table th[data-key='0'] button")
    click(page, "#table th[data-key='0'] button")
    assert names(page) == ["3", "2", "1", "0"]


def test_filters_and_kinds_choose_rows(page: Browser) -> None:
    click(page, "[data-filter=whole]")
    assert names(page) == ["2"]
    assert page.run("document.querySelector('#shown').textContent") == "1 of 4"
    click(page, "[data-filter=mixing]")
    assert names(page) == ["1"]
    click(page, "[data-filter=all]")
    page.run("kind.value = 'heads'; kind.dispatchEvent(new Event('change'))")
    assert names(page) == ["1"]


def test_a_search_finds_groups_by_name_and_by_their_tensors(page: Browser) -> None:
    page.press("/")
    page.type("NET.1 features")
    assert names(page) == ["0"]  # the group that net.1 reads
    page.type(" nothing")
    assert names(page) == []
    assert page.run("!document.querySelector('#none').hidden")
    page.press("Escape")
    assert names(page) == ["0", "1", "2", "3"]


def test_keys_move_through_the_table_and_open_groups(page: Browser) -> None:
    page.press("/")
    page.press("ArrowDown")
    page.press("ArrowDown")
    page.press("Enter")
    opened = "document.querySelectorAll('tr.detail').length"
    assert page.run(opened) == 1
    assert page.run("document.querySelector('tr.detail').previousSibling.dataset.group") == "1"
    page.press("Escape")
    assert page.run(opened) == 0
    page.press("ArrowUp")
    assert page.run("document.activeElement.textContent") == "net.0.weight:0"


def test_an_open_group_shows_its_units_scores_and_tensors(page: Browser) -> None:
    click(page, ".columns [data-group='1']")
    detail = page.run("document.querySelector('tr.detail').textContent")
    assert "8 of 16 removed: 0–7" in detail
    assert "Threshold 7.5: every removed unit scores below every kept one." in detail
    assert "weight 16 × 8 → 8 × 4" in detail
    assert "2 dimensions of tensors" in detail
    assert page.run("document.querySelectorAll('.detail .graph path').length") == 2
    click(page, "#table th[data-key='4'] button")
    assert page.run("document.querySelector('tr.detail').previousSibling.dataset.group") == "1"
    click(page, "[data-filter=whole]")
    assert page.run("document.querySelector('tr.detail').hidden")


def test_texts_of_a_plan_never_become_markup(page: Browser) -> None:
    click(page, ".columns [data-group='1']")
    assert page.run("document.querySelector('h1').textContent") == HOSTILE
    assert page.run("document.querySelector('.detail p').textContent") == f"Mixing: {HOSTILE}."
    assert page.run("document.querySelectorAll('img, td b').length") == 0
    refused = "try { document.body.innerHTML = '<b>x</b>'; 'set' } catch { 'refused' }"
    assert page.run(refused) == "refused"
    page.complaints.clear()  # the attempt of this test


def test_tables_are_filled_when_they_are_opened(page: Browser) -> None:
    page.run("document.querySelectorAll('#details details').forEach(d => d.open = true)")
    filled = "document.querySelectorAll('#details details[open]:not([hidden]) table').length > 1"
    page.run(f"new Promise(d => {{ (function wait() {{ {filled} ? d() : setTimeout(wait) }})() }})")
    rows = "[...document.querySelectorAll('[data-table={}] tbody tr')].map(r => r.innerText)"
    assert page.run(rows.format("tensors"))[0].split("\t") == ["net.0.weight", "8 × 3", "4 × 3"]
    assert page.run(rows.format("attributes"))[0].split("\t") == ["net.0.out_features", "8", "4"]
    assert page.run("document.querySelector('[data-table=outputs]').hidden")


def background(page: Browser) -> str:
    found: str = page.run("getComputedStyle(document.body).backgroundColor")
    return found


def test_themes_follow_the_system_or_the_reader_and_print_is_light(
    page: Browser, tmp_path: Path
) -> None:
    light = background(page)
    assert light == "rgb(255, 255, 255)"
    page.press("t")
    page.press("t")
    dark = background(page)
    assert dark != light
    page.open(tmp_path / "page.html")
    assert background(page) == dark  # remembered
    page.press("t")
    assert background(page) == light
    page.open(tmp_path / "page.html", dark=True)
    assert background(page) == dark
    page.call("Emulation.setEmulatedMedia", media="print")
    assert background(page) == light
    assert page.run("getComputedStyle(document.querySelector('#tools')).display") == "none"
    page.run("addEventListener('beforeprint', () => window.printed = facts().open); 0")
    assert page.run("window.facts = () => document.querySelector('.facts'); facts().open") is False
    assert page.pdf().startswith(b"%PDF-")
    assert page.run("[window.printed, facts().open]") == [True, False]  # the origin is printed, too


@pytest.mark.parametrize("width", [800, 1400])
def test_a_page_fits_its_window(page: Browser, tmp_path: Path, width: int) -> None:
    page.open(tmp_path / "page.html", width=width)
    click(page, ".columns [data-group='1']")
    assert page.run("document.documentElement.scrollWidth") <= width


def test_two_plans_stand_side_by_side(page: Browser, tmp_path: Path) -> None:
    a, b = chain(4, 8, 0, 16), chain(4, 4, 0, 20)
    other = b.replace(groups=(*b.groups[:-1], replace(b.groups[-1], removed=tuple(range(8, 28)))))
    planc.report(a, other, out=tmp_path / "two.html", names=["a.planc", "b.planc"])
    page.open(tmp_path / "two.html")
    click(page, "[data-filter=differing]")
    assert names(page) == ["1", "3"]
    cells = f"{SHOWN}.map(row => [...row.cells].slice(2, 6).map(cell => cell.textContent))"
    assert page.run(cells) == [["16", "8", "12", "50 %"], ["32", "16", "12", "29 %"]]
    click(page, ".columns [data-group='3']")
    detail = page.run("document.querySelector('tr.detail').innerText")
    assert "A 16 of 32 removed: 0–15" in detail
    assert "B 20 of 32 removed: 8–27" in detail


def test_a_plan_without_groups_has_a_page(page: Browser, tmp_path: Path) -> None:
    planc.report(chain(), chain(), out=tmp_path / "none.html")
    page.open(tmp_path / "none.html")
    assert names(page) == []
    assert "0 of 0 groups differ." in page.run("document.body.innerText")


def test_a_large_plan_opens_quickly_enough_to_read(page: Browser, tmp_path: Path) -> None:
    large = chain(*[i % 8 for i in range(300)])
    planc.report(large, out=tmp_path / "large.html")
    page.open(tmp_path / "large.html")
    assert len(names(page)) == 300
    page.press("/")
    page.type("net.299")
    assert names(page) == ["298", "299"]
