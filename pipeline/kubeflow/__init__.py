"""The code that runs inside the containers of Kubeflow Pipelines."""
