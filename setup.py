"""Package metadata; the tools' settings are in pyproject.toml, the locked versions in requirements/."""

from pathlib import Path

from setuptools import find_packages, setup

JAX = "jax>=0.10,<0.11"  # flax 0.12.8 does not work with jax 0.11.1 and later

setup(
    name="evads_jax",
    version="0.1.0",
    description="Understanding e-commerce short videos in JAX: E-VAds-R1 with MG-GRPO and information density",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.14",
    packages=find_packages(include=["evads_jax", "evads_jax.*"]),
    package_data={
        "evads_jax": ["py.typed", "judge/prompts/*/*.toml", "benchmark/qa/*.tsv", "benchmark/qa/prompts/*/*.toml"]
    },
    install_requires=[
        JAX,
        "flax>=0.12.8,<0.13",
        "optax>=0.2.8,<0.3",
        "orbax-checkpoint>=0.12.8,<0.13",
        "grain>=0.2.18,<0.3",
        "tensorflow-datasets>=4.9.10,<5",
        "importlib_resources",  # tensorflow-datasets needs it and does not say so
        "sentencepiece>=0.2.3,<0.3",
        "ml-collections>=1.1,<2",
        "clu>=0.0.12,<0.1",
        "chex>=0.1.92,<0.2",
        "array-record>=0.8.6,<0.9",
        "safetensors>=0.8,<0.9",
        "tokenizers>=0.23.3,<0.24",
        "jaxtyping>=0.3,<0.4",
        "numpy>=2,<3",
        "etils>=1.12,<2",
        "absl-py>=2.1,<3",
        "h11>=0.14,<1",
        "av>=18,<19",
        "pillow>=12,<14",
        "pyarrow>=25,<27",
        "matplotlib>=3.10,<4",
        "rich>=15,<16",
        "tensorboardX>=2.6,<3",
    ],
    extras_require={
        "test": [
            "pytest>=9,<10",
            "pytest-timeout>=2.4,<3",
            "pytest-xdist>=3.6,<4",
            "hypothesis>=6.150,<7",
            "scikit-learn>=1.7,<2",  # its handwritten digits
            "gcsfs>=2026.10,<2027",
            "ruff==0.17.5",
            "mypy==2.4.1",
        ],
        "peers": ["torch==2.13.0", "transformers>=5.23,<6", "trl>=1.16,<2"],
        "cuda": ["jax[cuda13]>=0.10,<0.11"],
        "tpu": ["jax[tpu]>=0.10,<0.11"],
        "gcs": ["gcsfs>=2026.10,<2027"],
        "beam": ["apache-beam>=2.77,<3"],
        "ocr": ["rapidocr>=3.10,<4", "onnxruntime>=1.20,<2"],
        "asr": ["faster-whisper>=1.2,<2"],
    },
    classifiers=[
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
