"""Whether device, model and data can be there, as far as that shows without loading them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kvharness.errors import UsageProblem
from kvharness.items.filler import read_sentences
from kvharness.items.real.files import local_files
from kvharness.pretrained.find import EMBEDDED, local_folder

if TYPE_CHECKING:
    from kvharness.run.settings import Settings

_DEVICE = re.compile(r"auto|cpu(:\d{1,3})?|cuda(:\d{1,3})?", re.ASCII)


def check_presence(settings: Settings) -> None:
    """Refuse what cannot be there, also where tests are only listed.

    An embedded model that is not installed is not missed here: listing needs none.

    Raises:
        KvharnessError: says which option, and what was expected.
    """
    if not _DEVICE.fullmatch(settings.device):
        raise UsageProblem(f"--kv-device {settings.device!r}: expected auto, cpu, cuda or cuda:N")
    if settings.model not in EMBEDDED:
        local_folder(settings.model)
    for _, source in settings.data:
        local_files(source)
    if settings.haystack is not None:
        read_sentences(settings.haystack)
