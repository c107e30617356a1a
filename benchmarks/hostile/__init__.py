"""``legato bench hostile``: what one hostile client costs everybody else."""
