from . import strategies as strategies
from .catalogue import CHECKS as CHECKS
from .catalogue import VERSION as VERSION
from .catalogue import Check as Check
from .catalogue import checks_for as checks_for
from .catalogue import left_out as left_out
from .checks.engine import check_cells_independent as check_cells_independent
from .checks.engine import check_full_retention_is_identity as check_full_retention_is_identity
from .checks.engine import check_masked_equals_evicted as check_masked_equals_evicted
from .checks.interface import check_dtype_and_device as check_dtype_and_device
from .checks.interface import check_finite_scores as check_finite_scores
from .checks.interface import check_protect_fits as check_protect_fits
from .checks.interface import check_scores_fit as check_scores_fit
from .checks.numerics import check_group_order as check_group_order
from .checks.numerics import check_query_chunks as check_query_chunks
from .checks.purity import check_deterministic as check_deterministic
from .checks.purity import check_global_state as check_global_state
from .checks.purity import check_inputs_unchanged as check_inputs_unchanged
from .checks.purity import check_no_state as check_no_state
from .checks.purity import check_seed_does_not_matter as check_seed_does_not_matter
from .checks.purity import check_seed_matters as check_seed_matters
from .checks.purity import check_sees_only_its_needs as check_sees_only_its_needs
from .checks.repeated import (
    check_survives_repeated_compression as check_survives_repeated_compression,
)
from .checks.selection import check_exact_budget as check_exact_budget
from .checks.selection import check_kept_positions as check_kept_positions
from .checks.selection import check_nested_budgets as check_nested_budgets
from .checks.selection import check_protected_kept as check_protected_kept
from .checks.surroundings import check_reads_are_in_the_key as check_reads_are_in_the_key
from .machine import SessionMachine as SessionMachine
from .machine import run_session_machine as run_session_machine
from .mistake import Mistake as Mistake
from .parametrize import parametrize_with_checks as parametrize_with_checks
