"""The public threads about sessions that nobody closes: which program shows what each reports, or why none does.

Gathered on 2026-11-22 from the projects' issue trackers. A thread without a program says why it has none.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["NOT_REPRODUCED", "REPRODUCED", "Thread", "program_of"]

_REPOSITORIES = {
    "ace": "ai2cm/ace",
    "adlfs": "fsspec/adlfs",
    "datasets": "huggingface/datasets",
    "dvc": "treeverse/dvc",
    "earthaccess": "earthaccess-dev/earthaccess",
    "flytekit": "flyteorg/flytekit",
    "fsspec": "fsspec/filesystem_spec",
    "gcsfs": "fsspec/gcsfs",
    "hail": "hail-is/hail",
    "insitubatch": "emfdavid/insitubatch",
    "kerchunk": "fsspec/kerchunk",
    "mdio": "TGSAI/mdio-python",
    "posthog": "PostHog/posthog",
    "pyiceberg": "apache/iceberg-python",
    "quetz": "mamba-org/quetz",
    "s3fs": "fsspec/s3fs",
    "spatialdata-io": "scverse/spatialdata-io",
    "transformerlab": "transformerlab/transformerlab-app",
    "virtualizarr": "zarr-developers/VirtualiZarr",
    "xarray": "pydata/xarray",
    "zarr": "zarr-developers/zarr-python",
    "zenml": "zenml-io/zenml",
}


@dataclass(frozen=True)
class Thread:
    """A public thread: an issue or a pull request.

    Attributes
    ----------
    name : str
        Project and number, such as ``"zarr#2674"``.
    """

    name: str

    @property
    def url(self) -> str:
        """Its address; GitHub leads from an issue's to a pull request's."""
        project, _, number = self.name.partition("#")
        return f"https://github.com/{_REPOSITORIES[project]}/issues/{number}"


# Program → the threads that report what its plain form shows.
REPRODUCED: dict[str, tuple[str, ...]] = {
    "left_at_exit": ("zarr#2674", "gcsfs#657"),
    "closing_closes_nothing": ("zarr#4003", "fsspec#864", "fsspec#865", "spatialdata-io#327"),
    "group_has_no_end": ("zarr#2619", "zarr#2691", "zarr#1544", "zarr#509"),
    "used_after_close": ("zarr#2338", "zarr#2067"),
    "own_async_filesystem": ("zarr#2901", "s3fs#943"),
    "closed_by_a_sibling": ("zarr#4165", "dvc#5668"),
    "azure_at_exit": ("zarr#4221", "zarr#4369", "adlfs#296", "adlfs#129", "adlfs#148"),
    "second_run": (
        *("zarr#2878", "ace#592", "gcsfs#659", "flytekit#3308", "posthog#50348", "quetz#650", "transformerlab#1214"),
        "insitubatch#11",
    ),
    "sync_then_async": ("zarr#2909", "zarr#1805"),
    "fsspec_beside_zarr": ("zarr#3487", "mdio#613", "mdio#712"),
    "chained_url": ("zarr#2946", "zarr#3323", "zarr#2993", "kerchunk#544", "fsspec#1795"),
    "forked_child": (
        *("zarr#2812", "zarr#2815", "fsspec#835", "fsspec#755", "gcsfs#379", "s3fs#464", "s3fs#914", "s3fs#889"),
    ),
    "collected": ("gcsfs#606", "fsspec#1506"),
    "cleared_cache": ("zarr#4165",),
    "asynchronous_service": ("gcsfs#692", "s3fs#843", "s3fs#907", "s3fs#454"),
    "closed_unused": ("gcsfs#519",),
    "one_filesystem_for_both": ("fsspec#1884",),
    "many_threads": ("fsspec#2020", "fsspec#2028", "datasets#8149", "pyiceberg#2495"),
    "rotating_options": ("zenml#2802", "fsspec#1930", "fsspec#1933"),
    "session_closed_by_hand": ("s3fs#1001", "s3fs#1002", "s3fs#1019", "s3fs#1020"),
    "concurrent_first_use": ("s3fs#1025", "s3fs#1028", "s3fs#854"),
    "xarray_dataset": ("xarray#8425", "xarray#4076", "xarray#4395"),
    "closed_twice": ("zenml#4586", "zenml#4593"),
}

# Reason → the threads that no program shows.
NOT_REPRODUCED: dict[str, tuple[str, ...]] = {
    "Files that are collected on the IO thread, fixed in gcsfs 2026.8.2; zarr reads whole objects and ranges, and "
    "opens no files": ("gcsfs#1014", "gcsfs#1037", "gcsfs#1009", "gcsfs#1040"),
    "Handles of files, which kerchunk and others keep, not sessions": (
        *("earthaccess#1408", "kerchunk#214", "virtualizarr#841", "adlfs#173"),
    ),
    "Documentation that names `set_session`, and a timeout in a finalizer that gcsfs catches by now": (
        *("gcsfs#542", "gcsfs#396"),
    ),
    "`fsspec.asyn.sync` waits for ever for an IO thread that died late in the interpreter's end, at a moment that no "
    "program can choose; this package closes before that, within its timeout": ("fsspec#1723", "fsspec#1685"),
    "Credentials of Azure (managed identities, tokens), which the emulator has not; fixed in adlfs 2026.4.0": (
        *("adlfs#346", "adlfs#431", "adlfs#518"),
    ),
    "A finalizer within Sanic, whose order of ending needs that server": ("s3fs#780", "s3fs#782"),
    "Interfaces of another package, without zarr": ("hail#14280", "hail#15203", "hail#14418", "hail#13421"),
    "Faults in that package's own way of closing": ("insitubatch#30", "insitubatch#41"),
}


def program_of(thread: str) -> list[str]:
    """The programs that show what a thread reports."""
    return [program for program, threads in REPRODUCED.items() if thread in threads]
