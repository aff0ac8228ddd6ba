"""The settings of a run, validated."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kvharness.contract import FIRST, Contract, QuestionMode, budget_of
from kvharness.discovery.spec import EVERY, PolicySpec
from kvharness.errors import UsageProblem
from kvharness.items.suites import SUITES
from kvharness.run.options import given_texts
from kvharness.settings.setting import Reach, as_text
from kvharness.settings.table import SettingTable, contract_settings, settings_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pytest

    from kvharness.settings.setting import Setting


@dataclass(frozen=True, kw_only=True)
class Settings(SettingTable):
    """What to run, in the words of the contract.

    Attributes:
        values: of every setting, by flag.
        given: the flags of those that were given, on the command line or in an ini file.
    """

    values: Mapping[str, Any]
    given: frozenset[str]

    @classmethod
    def of(cls, config: pytest.Config) -> Settings:
        """Read and check all options.

        Raises:
            UsageProblem: one of them makes no sense; says which and what was expected.
        """
        found = {setting: given_texts(config, setting) for setting in settings_of()}
        folders = {"root": config.rootpath, "here": config.invocation_params.dir}
        settings = cls(
            values={each.flag: each.read(texts, **folders) for each, texts in found.items()},
            given=frozenset(each.flag for each, texts in found.items() if texts),
        )
        _check_suites(settings.data)
        return settings

    @property
    def contract(self) -> Contract:
        chosen = contract_settings()
        return Contract.of({name: self.values[each.flag] for name, each in chosen.items()})

    @property
    def retentions_given(self) -> bool:
        return SettingTable.retentions.flag in self.given

    @property
    def seeds_given(self) -> bool:
        return SettingTable.seeds.flag in self.given

    @property
    def demanded(self) -> dict[str, str]:
        """What the records of a replay must be of, by flag: all that was given, even a default.

        ``auto`` demands nothing.
        """
        elsewhere = (each for each in settings_of(Reach.RUN, Reach.ANSWER) if each.stored_at)
        found = {
            each.flag: each.demanded(self.values[each.flag])
            for each in (*elsewhere, *contract_settings().values())
            if each.flag in self.given
        }
        return {flag: text for flag, text in found.items() if text != "auto"}

    def options(self) -> dict[str, str]:
        """What the contract does not say of how answers are computed, by flag, unless default."""
        return self._unless_default(settings_of(Reach.ANSWER))

    def keyed(self) -> dict[str, str]:
        """Those of `options` that nothing else in the key of a record says."""
        return self._unless_default(each for each in settings_of(Reach.ANSWER) if each.keyed)

    def keyed_contract(self) -> dict[str, object]:
        """The contract as keys of records have it: see `kvharness.contract.FIRST`."""
        known = contract_settings()
        return {
            name: value
            for name, value in self.contract.as_dict().items()
            if name in FIRST or as_text(value) != known[name].default
        }

    def _unless_default(self, chosen: Iterable[Setting[Any]]) -> dict[str, str]:
        found = {each: each.show(self.values[each.flag]) for each in chosen}
        return {each.flag: text for each, text in found.items() if text != each.default}

    @property
    def named(self) -> list[str]:
        """Slugs of the policies that ``--policy`` gave one by one, in their order."""
        return [spec.slug for spec in self._specs if str(spec) != EVERY]

    @property
    def everything(self) -> bool:
        """Whether ``--policy`` asked for all policies."""
        return any(str(spec) == EVERY for spec in self._specs)

    @property
    def _specs(self) -> list[PolicySpec]:
        return [spec for text in self.policies for spec in PolicySpec.parse_list(text)]

    def check_budgets(self) -> None:
        """Every retention must hold the sinks; known before any model is loaded.

        Raises:
            UsageProblem: one of them does not.
        """
        protection = self.contract.protection
        last = (
            " and the last token of a prompt"
            if self.contract.question is QuestionMode.PROMPT
            else ""
        )
        for retention in self.retentions:
            budget = budget_of(retention, self.context)
            if budget < self.contract.least:
                raise UsageProblem(
                    f"--retention {float(retention):g} of --kv-context {self.context} "
                    f"keeps {budget} entries a head, which cannot hold the {protection.sinks} "
                    f"sinks{last}; raise one of the two or lower --kv-sinks"
                )
        if protection.total > self.context:
            raise UsageProblem(
                f"--kv-sinks {protection.sinks} and --kv-recents {protection.recents} are more "
                f"than --kv-context {self.context}"
            )


def contract_of(stored: Mapping[str, Any]) -> Contract:
    """The contract of a run from its header; a setting that came later had its default."""
    return Contract.of(
        {
            name: each.read_text(as_text(stored.get(name, "")))
            for name, each in contract_settings().items()
        }
    )


def _check_suites(data: Iterable[tuple[str, str]]) -> None:
    real = [name for name, each in SUITES.items() if each.real]
    for suite, _ in data:
        if suite not in real:
            near = difflib.get_close_matches(suite, real, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UsageProblem(
                f"--kv-data {suite}=...: real data is for {' or '.join(real)}, not {suite!r}{hint}"
            )
