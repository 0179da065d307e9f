"""What a generation keeps on disk: every message, and the state of each video after each stage.

`messages.jsonl` has one line per reply, written before the reply is used; it is also what a resumed run reads, so that
no call is made twice. `videos/<name>-<digest>/<stage>.json` is the state after a stage.
"""

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evads_jax import whole
from evads_jax.benchmark.qa.draft import Candidate, candidate_from_json, to_json
from evads_jax.benchmark.qa.prompting import Call, without_images
from evads_jax.benchmark.qa.writers import Written


@dataclasses.dataclass(frozen=True)
class State:
    """A video's candidates after a stage.

    Attributes:
      candidates: all of them, the rejected ones too.
      ranking: ids, the best first, once they are chosen among.
      malformed: roles whose drafts could not be read.
    """

    candidates: tuple[Candidate, ...] = ()
    ranking: tuple[str, ...] = ()
    malformed: tuple[str, ...] = ()


class Record:
    """The files of one generation.

    Args:
      folder: where they are.
    """

    def __init__(self, folder: Path):
        self._folder, self._messages = folder, folder / "messages.jsonl"
        (folder / "videos").mkdir(parents=True, exist_ok=True)
        self._known: dict[str, Written] = {}
        self.cost = 0.0
        self._read()

    def _read(self) -> None:
        """Reads the messages; a last line that was cut off by a kill is taken away, so that new ones stand alone."""
        if not self._messages.exists():
            return
        data = self._messages.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            with self._messages.open("r+b") as file:
                file.truncate(len(whole))
        for line in whole.splitlines():
            row = json.loads(line)
            if row["reply"]:  # a call that brought nothing is made again
                self._known[row["key"]] = Written(row["reply"], row["problem"])
            self.cost += row["cost"]

    @staticmethod
    def key(writer: str, call: Call, messages: Sequence[Any]) -> str:
        """What a reply depends on."""
        text = json.dumps([writer, call.subject.video, call.stage, call.role, messages], ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def known(self, key: str) -> Written | None:
        """The reply to a call that was made before."""
        return self._known.get(key)

    def message(self, key: str, writer: str, call: Call, messages: Sequence[Any], written: Written) -> None:
        """Keeps a reply; it is on the disk when this returns."""
        row = {
            "key": key,
            "video": call.subject.video,
            "stage": call.stage,
            "role": call.role,
            "about": [candidate.id for candidate in call.candidates],
            "writer": writer,
            "messages": without_images(messages),
            "reply": written.text,
            "problem": written.problem,
            "input_tokens": written.input_tokens,
            "output_tokens": written.output_tokens,
            "cost": written.cost,
        }
        line = json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        with self._messages.open("ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self._known[key] = written
        self.cost += written.cost

    def load(self, video: str, stage: str) -> State | None:
        """A video's state after a stage; None where it has not come so far."""
        path = self._path(video, stage)
        if not path.exists():
            return None
        fields = json.loads(path.read_text(encoding="utf-8"))
        return State(
            tuple(map(candidate_from_json, fields["candidates"])), tuple(fields["ranking"]), tuple(fields["malformed"])
        )

    def save(self, video: str, stage: str, state: State) -> None:
        """Keeps a video's state after a stage."""
        path = self._path(video, stage)
        fields = {
            "video": video,
            "candidates": [to_json(candidate) for candidate in state.candidates],
            "ranking": state.ranking,
            "malformed": state.malformed,
        }
        whole.write(path, json.dumps(fields, ensure_ascii=False, indent=1) + "\n")

    def _path(self, video: str, stage: str) -> Path:
        digest = hashlib.sha256(video.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        name = re.sub(r"[^\w.-]+", "_", Path(video).stem)[:40]
        return self._folder / "videos" / f"{name}-{digest}" / f"{stage}.json"
