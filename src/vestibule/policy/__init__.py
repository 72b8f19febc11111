"""Policy: Rego bundles decide every crossing, default deny, the strictest layer wins."""

from vestibule.policy.policy_set import Explanation, LayerAnswer, PolicySet, input_key

__all__ = ["Explanation", "LayerAnswer", "PolicySet", "input_key"]
