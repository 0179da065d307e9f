"""Information density of a video corpus: V_den, A_den and O_den of each video and of all, beside the published.

    python -m evads_jax.main --config=configs/density.py --workdir=runs/density --config.videos=DIR

or `--config.shards=DIR` (prepared shards), or `--config.annotations=FILE_OR_DIR` (E-VAds parquets: A and O in seconds;
V is missing then). Two cores measure about 10 short mp4s a second with block features and no OCR; DINOv3 ViT-B takes
a quarter to a half second a frame on such a machine. Fields marked «open» are not given in the paper.
"""

import ml_collections
from ml_collections import config_dict

placeholder = config_dict.placeholder


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.job = "density"  # which entry of evads_jax.main runs this config
    config.name = "corpus"  # what tables and corpus.json call it

    config.videos = placeholder(str)  # folder of video files
    config.shards = placeholder(str)  # folder of prepared shards
    config.split = placeholder(str)  # of the shards; None for all
    config.annotations = placeholder(str)  # E-VAds parquet or folder of them; alone or beside videos
    config.transcripts = placeholder(str)  # folder of .srt, .vtt, .json or .txt named like the videos
    config.write_events = False  # also write what was read and heard as E-VAds events, W/density/events.jsonl
    config.questions = placeholder(str)  # own questions (JSONL) to which write_events adds the events

    visual = config.visual = ml_collections.ConfigDict()
    visual.features = "auto"  # auto | dinov3 | dinov3_random | blocks | none; auto: dinov3 where `model` is given
    visual.model = placeholder(str)  # folder with config.json and *.safetensors of DINOv3
    visual.pool = "cls"  # cls | patches; open
    visual.image_size = 224  # side of the square that the model sees
    visual.batch = 16
    visual.frame_rate = 2.0  # frames a second; open
    visual.max_frames = 2400  # longer videos are sampled at the lower rate that gives so many
    visual.alpha = 100.0  # open
    visual.per = "frames"  # T: frames | seconds; open
    visual.radius = 2.0  # open
    visual.unit = "seconds"  # of the radius: seconds | frames; open
    visual.shape = "triangular"  # of the weights: uniform | triangular | gaussian; open
    visual.weighting = "sampled"  # sampled | integral; open

    text = config.text = ml_collections.ConfigDict()
    text.words = "cjk_char_latin_run"  # or non_space_char; open
    text.ocr_counting = "per_second"  # per_second | per_run | distinct; open

    ocr = config.ocr = ml_collections.ConfigDict()
    ocr.engine = (
        "auto"  # auto | events | rapidocr | none; auto: events where there are some, else rapidocr if installed
    )
    ocr.frame_rate = 1.0  # frames a second that are read
    ocr.frame_size = 640  # the longer side of a frame that is read
    ocr.min_confidence = 0.6
    ocr.min_overlap = 0.5  # two readings with boxes of at least this overlap (IoU) …
    ocr.max_distance = 0.3  # … and at most this edit distance per character are one overlay

    asr = config.asr = ml_collections.ConfigDict()
    asr.engine = "auto"  # auto | events | transcripts | whisper | none; auto takes the first that is there
    asr.model = placeholder(str)  # folder of a faster-whisper model
    asr.language = placeholder(str)  # e.g. zh; None lets the model tell

    run = config.run = ml_collections.ConfigDict()
    run.runner = "local"  # local | beam
    run.workers = 2  # processes; 0 measures in this one (best with an accelerator)
    run.videos_per_part = 32  # one work item; its results appear together
    run.decode_seconds = 120.0  # a video that takes longer is given up
    run.decode_mebibytes = 4096  # address space of a decoder
    run.max_bad_share = 0.1  # the job stops when more of the corpus than this has failed
    run.beam_options = ()  # e.g. ("--runner=DataflowRunner", …); see docs/density.md

    report = config.report = ml_collections.ConfigDict()
    report.bootstrap = 2000
    report.seed = 0
    report.bins = 20
    report.extremes = 4  # densest and sparsest videos shown
    report.compare_with = placeholder(str)  # W/density/videos.jsonl of another run
    report.paired = False  # compare video by video (same names) instead of as two samples
    return config
