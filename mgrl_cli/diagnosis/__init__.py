"""What this machine offers mgrl and what it lacks: measured, judged, with what to do about it.

Measuring and judging are apart: a `measure` or a probe turns the machine into a record of facts, a
`judge` turns facts into checks and touches nothing. What can hang, crash or leave something behind
(imports, files, processes) is measured by a probe, a process of its own. Nothing here knows how the
checks are shown, and nothing heavy is imported outside of the probes.
"""
