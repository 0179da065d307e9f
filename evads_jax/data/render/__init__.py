"""Drawn ads: scripts, their questions and their videos; and stand-in videos for annotated rows."""

from evads_jax.data.render.questions import ask
from evads_jax.data.render.script import AdScript, Scene, draw_script, split_of
from evads_jax.data.render.video import AUDIO, decode_video, draw_video
from evads_jax.data.render.vocabulary import LANGUAGES

__all__ = ["AUDIO", "LANGUAGES", "AdScript", "Scene", "ask", "decode_video", "draw_script", "draw_video", "split_of"]
