"""The algorithm: pure torch on tensors, without files, processes, clocks or environments.

| symbol | word | where |
|---|---|---|
| φ, π_φ | policy | `networks.PolicyNetwork` |
| θ1, θ2, Q_θ | twin critic | `networks.CriticNetwork`, `td3` |
| φ⁻, θ⁻ | targets | `td3.polyak_update_` |
| α, L_α | objective | `objective_network.ObjectiveNetwork` |
| ℓ_t | loss per step of any objective | `objectives` |
| τ | window | `batches.Windows` |
| η, K | virtual step | `meta_gradient.VirtualStep` |
| ∇_α J | meta-gradient | `meta_gradient.meta_gradient` |
"""
