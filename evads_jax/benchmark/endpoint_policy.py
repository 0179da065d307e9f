"""A model behind an OpenAI-compatible endpoint as a policy: the frames as JPEG data URLs, each after its time.

Pacing, retries, the circuit breaker and the budget are the judge's (`judge.endpoint`). Each request under way holds one
video, so that memory does not grow with the benchmark.
"""

import asyncio
import base64
import collections
import dataclasses
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ml_collections import ConfigDict

from evads_jax.benchmark.files import NoVideo, Split, read_lines
from evads_jax.benchmark.policy import TEMPERATURES, check_protocol
from evads_jax.benchmark.predict import NO_PREDICTION, NO_VIDEO, Asked, Failed, Reply
from evads_jax.data import prompts
from evads_jax.data.records import Example, VideoRecord
from evads_jax.errors import UserError
from evads_jax.judge.budget import IMAGE_TOKENS, Budget, message_tokens
from evads_jax.judge.endpoint import Endpoint, EndpointSettings, NoReply

SECTION = "policy"
SHOWN_IN_DRY_RUN = 3


class EndpointPolicy:
    """Asks a model behind an endpoint.

    Args:
      config: the job's config; read: policy (`judge.endpoint.EndpointSettings`, dry_run), eval (protocol, samples,
        max_new_tokens), data (format_eval, frames), run (language, seed).
      split: the questions, to tell the work and its cost before it is done.
      folder: the evaluation's folder; what is paid for there already counts towards `policy.max_cost`.
      log: told what is about to be done.

    Raises:
      UserError: no key, unreachable host, unknown model, no price for a limit, an unknown protocol, blanked frames.
    """

    def __init__(self, config: ConfigDict, split: Split, folder: Path, log: Callable[[str], None] = print):
        samples, evaluation, data = check_protocol(config.eval), config.eval, config.data
        if evaluation.blank_frames:
            raise UserError("frames are blanked for models of ours only", "eval.blank_frames", "leave it out")
        temperature = TEMPERATURES[evaluation.protocol]
        settings = EndpointSettings.from_config(config.policy, SECTION)
        self.settings = dataclasses.replace(settings, temperature=temperature, max_tokens=evaluation.max_new_tokens)
        self.weights = f"{settings.model} at {urlsplit(settings.base_url).netloc}"
        self.protocol: Mapping[str, Any] = {
            "name": evaluation.protocol,
            "temperature": temperature,
            "top_p": 1.0,
            "max_new_tokens": evaluation.max_new_tokens,
            "format": data.format_eval,
            "language": config.run.language,
            "frame_rate": data.frame_rate,
            "max_frames": data.max_frames,
            "frame_size": data.frame_size,
            "blank_frames": False,
            **({"samples": samples} if samples > 1 else {}),
            **({"body": settings.body} if settings.body else {}),
        }
        self._split, self._seed, self._dry_run, self._log = split, config.run.seed, config.policy.dry_run, log
        paid = sum(row.get("cost", 0.0) for path in folder.glob("predictions*.jsonl") for row in read_lines(path))
        self._budget = Budget(settings.model, settings.prices, settings.max_cost, paid, settings.currency, SECTION)
        self._endpoint = Endpoint(self.settings, self._budget, log, SECTION)
        self._loop = asyncio.new_event_loop()
        if not self._dry_run:
            self._loop.run_until_complete(self._endpoint.check())

    def stream(
        self,
        wanted: Sequence[Asked],
        load: Callable[[int], VideoRecord],
        keep: Callable[[Asked, Reply | Failed], None],
    ) -> None:
        """Answers what is wanted, several videos at a time; see `predict.StreamingPolicy`.

        Raises:
          BudgetSpent: the work costs more than `policy.max_cost` leaves.
          EndpointDown: the endpoint failed for too long.
          SystemExit: with code 0, after a dry run.
        """
        videos: dict[int, list[Asked]] = {}
        for asked in wanted:
            videos.setdefault(asked.video, []).append(asked)
        self._announce(wanted, load)
        self._loop.run_until_complete(self._all(videos, load, keep))

    def close(self) -> None:
        """Closes the connections."""
        self._endpoint.close()
        self._loop.close()

    def messages(self, example: Example, record: VideoRecord) -> list[dict[str, Any]]:
        """The chat messages of a question."""
        content = []
        for time, frame in zip(record.times, record.frames, strict=True):
            url = "data:image/jpeg;base64," + base64.b64encode(frame).decode()
            content += [
                {"type": "text", "text": f"<{time:.1f} seconds>"},
                {"type": "image_url", "image_url": {"url": url}},
            ]
        return [{"role": "user", "content": [*content, {"type": "text", "text": self._text(example)}]}]

    async def _all(
        self,
        videos: Mapping[int, Sequence[Asked]],
        load: Callable[[int], VideoRecord],
        keep: Callable[[Asked, Reply | Failed], None],
    ) -> None:
        """One worker per request under way, each with one video; when one must stop, the others end their question."""
        queue, failures = collections.deque(videos.items()), list[Exception]()
        decoder = ThreadPoolExecutor(1, "frames")  # one: a decoded video is large, and replies take longer than it

        async def worker() -> None:
            while queue and not failures:
                video, asked = queue.popleft()
                try:
                    record = await self._record(load, video, decoder)
                    for one in asked:
                        if not failures:
                            keep(one, record if isinstance(record, Failed) else await self._ask(one, record))
                except Exception as error:
                    failures.append(error)

        await asyncio.gather(*(worker() for _ in range(min(self.settings.concurrency, len(videos)))))
        decoder.shutdown()
        if failures:
            raise failures[0]

    async def _record(
        self, load: Callable[[int], VideoRecord], video: int, decoder: ThreadPoolExecutor
    ) -> VideoRecord | Failed:
        try:
            return await self._loop.run_in_executor(decoder, load, video)
        except NoVideo as error:
            return Failed(NO_VIDEO, str(error))

    async def _ask(self, asked: Asked, record: VideoRecord) -> Reply | Failed:
        example = record.example(asked.question)
        seed = zlib.crc32(f"{self._seed}/{example.question.id}/{asked.sample}".encode()) & 0x7FFFFFFF
        reply = await self._endpoint.complete(self.messages(example, record), seed=seed)
        if isinstance(reply, NoReply):
            return Failed(NO_PREDICTION, reply.reason)
        return Reply(reply.text, reply.finished, reply.input_tokens, reply.output_tokens, reply.cost)

    def _announce(self, wanted: Sequence[Asked], load: Callable[[int], VideoRecord]) -> None:
        """Tells the work and its cost without opening a video, and refuses it when it is too much."""
        examples = dict(zip(self._split.places, self._split.examples, strict=True))
        tokens = [self._expected_tokens(examples[asked.video, asked.question]) for asked in wanted]
        estimate = self._budget.estimate(tokens, self.settings.max_tokens).line(self._budget.currency)
        if self._dry_run:
            for asked in wanted[:SHOWN_IN_DRY_RUN]:
                self._show(examples[asked.video, asked.question], load, asked.video)
            self._log(f"dry run, nothing was sent; the work would take {estimate}")
            raise SystemExit(0)
        self._log(f"policy {self.settings.model}: {estimate}")
        self._budget.admit(self._budget.estimate(tokens, self.settings.max_tokens), SECTION)

    def _expected_tokens(self, example: Example) -> int:
        frames = self.protocol["max_frames"]
        if example.duration is not None and self.protocol["frame_rate"]:
            frames = min(frames, max(math.ceil(example.duration * self.protocol["frame_rate"]), 1))
        return message_tokens([{"content": self._text(example)}]) + frames * IMAGE_TOKENS

    def _show(self, example: Example, load: Callable[[int], VideoRecord], video: int) -> None:
        try:
            frames = ", ".join(f"{time:.1f}" for time in load(video).times)
        except NoVideo as error:
            frames = f"no video ({error})"
        self._log(f"--- {example.question.id}\n[frames at seconds {frames}]\n{self._text(example)}")

    def _text(self, example: Example) -> str:
        return prompts.render(example, self.protocol["format"], self.protocol["language"]).text
