"""The packages of a release. The folder `configs` is installed as a part of the package."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["cake_jax*"]), "cake_jax.configs"], package_dir={"cake_jax.configs": "configs"})
