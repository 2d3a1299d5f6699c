from __future__ import annotations

import json
from pathlib import Path

from training.home import Home
from training.reporting.files import last_traceback, sample_replies
from training.reporting.progress import _forget_lines

LOG = """2026-05-04 09:30:00 attempt 1 of dpo begins
Traceback (most recent call last):
  File "a.py", line 1, in old
ValueError: the first one
2026-05-04 09:31:00 resumed: attempt 2
Traceback (most recent call last):
  File "a.py", line 1, in work
    raise ValueError("two lines")
ValueError: two lines
and more
2026-05-04 09:32:00 ended: failed: ValueError: two lines (the log has the rest).
"""


def test_the_last_traceback_is_found_whole(tmp_path: Path) -> None:
    home = Home(tmp_path).create()
    assert last_traceback(home, "run-1") == ""
    home.run_dir("run-1").mkdir()
    home.log_path("run-1").write_text("2026-05-04 09:30:00 all is well\n")
    assert last_traceback(home, "run-1") == ""
    home.log_path("run-1").write_text(LOG)
    found = last_traceback(home, "run-1")
    assert found.startswith("Traceback") and found.endswith("ValueError: two lines\nand more")
    assert "first one" not in found


def test_a_look_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    home = Home(tmp_path).create()
    assert sample_replies(home, "run-1") == []
    home.run_dir("run-1").mkdir()
    (home.run_dir("run-1") / "samples.jsonl").write_text('{"step": 0, "said": [["hi", "ho"]]}\n{"step": 5, "sa')
    assert sample_replies(home, "run-1") == [(0, [("hi", "ho")])]


def test_a_reply_may_hold_any_sign_at_which_text_breaks(home: Home) -> None:
    path = home.run_dir("run-2") / "samples.jsonl"
    path.parent.mkdir(parents=True)
    line = json.dumps({"step": 3, "said": [["hi", "one\u2028two\u0085three"]]}, ensure_ascii=False).encode()
    path.write_bytes(line + b"\n" + line[:-8])  # and a kill may cut the last line in the middle of a sign
    assert sample_replies(home, "run-2") == [(3, [("hi", "one\u2028two\u0085three")])]
    _forget_lines(path, 4)
    assert path.read_bytes() == line + b"\n"
