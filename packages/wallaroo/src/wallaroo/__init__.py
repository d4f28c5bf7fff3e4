"""The notebook side of the platform: upload a model, deploy a pipeline, infer, read the log.

import wallaroo
wl = wallaroo.Client()  # finds the platform of this machine, or starts it
"""

from wallaroo._version import __version__
from wallaroo.client import Client
from wallaroo.deployment_config import DeploymentConfig, DeploymentConfigBuilder

__all__ = ["Client", "DeploymentConfig", "DeploymentConfigBuilder", "__version__"]
