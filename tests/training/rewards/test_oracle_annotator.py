from __future__ import annotations

from pathlib import Path

import pytest

from feedback.database.engine import Database
from feedback.errors import InvalidInput, UnknownSetting
from feedback.store.content.generations import list_generations
from feedback.store.labeling.matchups import save_gold
from feedback.types import Source, Verdict
from tests.factories import get_matchup, list_judgments, make_matchup
from training.home import Home
from training.rewards.oracle_annotator import annotate


def fill(db: Database, count: int) -> None:
    for number in range(count):
        make_matchup(db, texts=[f"short {number}", f"this one is a good deal longer {number}"])


def test_an_oracle_judges_like_a_person_and_is_marked(db: Database, tmp_path: Path) -> None:
    fill(db, 6)
    sitting = annotate(db, Home(tmp_path), "shorter", 4)
    assert (sitting.annotator, sitting.judged, sitting.ties) == ("oracle:shorter", 4, 0)
    judged = list_judgments(db)
    assert len(judged) == 4
    texts = {row.id: row.text for row in list_generations(db)}
    assert all(row.source is Source.simulated and row.annotator == "oracle:shorter" for row in judged)
    assert {row.verdict for row in judged} <= {Verdict.first, Verdict.second}
    assert len(texts) == 12


def test_an_oracle_is_given_no_checks_in_place_of_pairs(db: Database, tmp_path: Path) -> None:
    fill(db, 60)
    gold = {save_gold(db, make_matchup(db).id, {"verdict": "first"}).id for _ in range(20)}
    assert annotate(db, Home(tmp_path), "longer", 100).judged == 60
    assert not gold & {row.matchup_id for row in list_judgments(db)}


def test_an_empty_pool_ends_the_sitting(db: Database, tmp_path: Path) -> None:
    fill(db, 3)
    seen: list[int] = []
    assert annotate(db, Home(tmp_path), "longer", 10, on_progress=seen.append).judged == 3
    assert seen == [1, 2, 3]


def test_noise_flips_and_the_seed_decides_which(db: Database, tmp_path: Path) -> None:
    fill(db, 60)
    annotate(db, Home(tmp_path), "shorter", 60, noise=0.5, seed=3)
    texts = {row.id: row.text for row in list_generations(db)}
    wrong = 0
    for row in list_judgments(db):
        first, second = (texts[key] for key in get_matchup(db, row.matchup_id).generation_ids)
        right = Verdict.first if len(first.split()) < len(second.split()) else Verdict.second
        wrong += row.verdict is not right
    assert 15 <= wrong <= 45


@pytest.mark.parametrize(("count", "noise"), [(0, 0.0), (5, 0.6), (5, -0.1)])
def test_what_makes_no_sense_is_refused(db: Database, tmp_path: Path, count: int, noise: float) -> None:
    with pytest.raises(InvalidInput):
        annotate(db, Home(tmp_path), "shorter", count, noise=noise)


def test_an_unknown_rule_is_refused_with_those_there_are(db: Database, tmp_path: Path) -> None:
    with pytest.raises(UnknownSetting, match="shorter, longer, keyword:WORD"):
        annotate(db, Home(tmp_path), "sweeter", 1)
