# GPU nodes for an EKS cluster that is there; the NVIDIA device plugin and an autoscaler are the cluster's matter.
data "aws_iam_policy_document" "nodes" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "nodes" {
  count              = var.cluster == null ? 0 : 1
  name               = "${var.name}-gpu-nodes"
  assume_role_policy = data.aws_iam_policy_document.nodes.json
}

resource "aws_iam_role_policy_attachment" "nodes" {
  for_each = var.cluster == null ? toset([]) : toset([
    "AmazonEKSWorkerNodePolicy",
    "AmazonEKS_CNI_Policy",
    "AmazonEC2ContainerRegistryReadOnly",
  ])
  role       = aws_iam_role.nodes[0].name
  policy_arn = "arn:aws:iam::aws:policy/${each.value}"
}

# Pods must not take the node's own role: its metadata answers only to the node itself. Disks are encrypted.
resource "aws_launch_template" "gpu" {
  count       = var.cluster == null ? 0 : 1
  name_prefix = "${var.name}-gpu-"

  metadata_options {
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  block_device_mappings {
    device_name = "/dev/xvda"

    ebs {
      volume_size = 200
      volume_type = "gp3"
      encrypted   = true
    }
  }
}

resource "aws_eks_node_group" "gpu" {
  count           = var.cluster == null ? 0 : 1
  cluster_name    = var.cluster.name
  node_group_name = "${var.name}-gpu"
  node_role_arn   = aws_iam_role.nodes[0].arn
  subnet_ids      = var.cluster.subnet_ids
  instance_types  = var.gpu_instance_types
  ami_type        = "AL2023_x86_64_NVIDIA"

  launch_template {
    id      = aws_launch_template.gpu[0].id
    version = aws_launch_template.gpu[0].latest_version
  }

  scaling_config {
    min_size     = 0
    desired_size = 0
    max_size     = var.gpu_nodes_max
  }

  labels = {
    "damcrack/pool" = "gpu"
  }

  taint {
    key    = "nvidia.com/gpu"
    value  = "present"
    effect = "NO_SCHEDULE"
  }

  lifecycle {
    ignore_changes = [scaling_config[0].desired_size] # the autoscaler's
  }

  depends_on = [aws_iam_role_policy_attachment.nodes]
}
