r"""Asks a model about one video and prints its reasoning and its answer; writes nothing.

    python -m evads_jax.main --config=configs/ask.py --config.model=runs/mg_grpo \
        --config.video=ad.mp4 --config.question="What does the product cost?"

The model is a run's folder, as `make train` leaves it, or the folder of a Qwen2.5-VL or Qwen3-VL checkpoint. Several
questions, one per line, share one prefill: --config.question=$'First?\nSecond?'. Questions are Chinese or English.
Fields that are None are the model's own. Time: a run's small model, some 13 seconds of a processor core, most of them
compilation (measured); a 2B checkpoint on a GPU, a minute of reading and compiling, then seconds (estimate). More is in
docs/ask.md.
"""

import ml_collections
from ml_collections import config_dict

placeholder = config_dict.placeholder


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.job = "ask"
    config.model = placeholder(str)  # a run's folder, or a checkpoint's
    config.stage = placeholder(str)  # of a run: base | sft | control | mg_grpo; default: mg_grpo where it is finished
    config.video = placeholder(str)  # the file
    config.question = placeholder(str)  # one, or several, one per line
    config.events = placeholder(str)  # a JSON file: what is said and written in the video, docs/your_data.md
    config.category = placeholder(str)  # of the goods, where it is known

    config.format = placeholder(str)  # prompt format; a checkpoint: asr_ocr
    config.language = placeholder(str)  # zh | en: of asr_ocr's instruction; a checkpoint: the question's
    config.frame_rate = placeholder(float)  # frames per second of video; a checkpoint: its processor's
    config.max_frames = placeholder(int)  # a checkpoint: 64, of 4,096 video tokens together
    config.prompt_tokens = placeholder(int)  # longer prompts lose events; a checkpoint: 8,192
    config.max_new_tokens = placeholder(int)  # a checkpoint: 512
    config.dtype = placeholder(str)  # of activations; a checkpoint: float32 on a CPU, bfloat16 elsewhere
    return config
