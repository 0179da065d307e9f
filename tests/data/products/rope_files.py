"""A tiny ROPE: three products, text files and pictures."""

import numpy as np
from PIL import Image

PAGES = {"p1": ("A", "red kettle", ["p1.jpg"]), "p2": ("B", "空", ["p2.jpg"])}
VIDEOS = {"v1": ("A", "look at this", ["v1_0.jpg", "v1_1.jpg", "v1_2.jpg"]), "v2": ("A", "again", ["v2_0.jpg"])}
LIVES = {"l1": ("A", "空", ["l1_0.jpg", "l1_1.jpg"]), "l2": ("C", "nothing else", ["l2_0.jpg"])}
NAMES = {
    "page": ("product_pages_pair", "page_titles", "page_images"),
    "video": ("product_videos_pair", "video_asrs", "video_frames"),
    "live": ("product_lives_pair", "live_asrs", "live_clips"),
}


def write_rope(folder, prefix="training", separator="\t", swapped=False):
    folder.mkdir(exist_ok=True)
    for domain, clips in (("page", PAGES), ("video", VIDEOS), ("live", LIVES)):
        pairs, texts, pictures = NAMES[domain]
        lines = {pairs: [], texts: [], pictures: []}
        for clip, (product, text, files) in clips.items():
            lines[pairs].append(separator.join((product, clip) if swapped else (clip, product)))
            lines[texts].append(clip + separator + text)
            lines[pictures].append(clip + separator + ",".join(f"https://host/bs2/{f}" for f in files))
        for name, rows in lines.items():
            (folder / f"{prefix}_{name}.txt").write_text("\n".join(rows) + "\n", encoding="utf-8")


def write_pictures(folder):
    folder.mkdir(exist_ok=True)
    for clips in (PAGES, VIDEOS, LIVES):
        for _, _, files in clips.values():
            for name in files:
                shade = sum(name.encode()) % 256
                Image.fromarray(np.full((30, 20, 3), shade, np.uint8)).save(folder / name, quality=95)
