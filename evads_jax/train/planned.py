"""How much of a TPU's memory the compiler plans a program with."""


def planned(mib: int | None) -> dict[str, str | bool] | None:
    """Options of the TPU compiler for a program that may take so many MiB of a device's memory, its arguments included.

    It takes what it believes to have, and does not know what stays in memory beside a program. It schedules for less
    where it is told to, and refuses what cannot run in so much.

    Args:
      mib: None for all.
    """
    return None if mib is None else {"xla_tpu_max_hbm_size_mib": str(mib)}
