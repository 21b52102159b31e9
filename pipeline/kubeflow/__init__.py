"""What runs inside the containers of Kubeflow Pipelines."""
