variable "name" {
  description = "Prefix of everything that is made."
  type        = string
  default     = "damcrack"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,30}$", var.name))
    error_message = "name: expected 2 to 31 lower-case letters, digits and dashes, a letter first."
  }
}

variable "region" {
  description = "Region of bucket and cluster."
  type        = string
  default     = "us-east-1"
}

variable "bucket" {
  description = "Name of the bucket; bucket names are unique in the world."
  type        = string
}

variable "namespace" {
  description = "Namespace of infra/kubernetes."
  type        = string
  default     = "damcrack"
}

variable "service_accounts" {
  description = "Accounts of that namespace whose pods may use the bucket."
  type        = set(string)
  default     = ["damcrack-imagery", "damcrack-pipeline"]
}

variable "cluster" {
  description = "An EKS cluster that is there: its name and the subnets for GPU nodes. Null: the bucket alone."
  type = object({
    name       = string
    subnet_ids = list(string)
  })
  default = null
}

variable "gpu_instance_types" {
  description = "Instance types of the GPU nodes, in the order of preference."
  type        = list(string)
  default     = ["g5.2xlarge"]
}

variable "gpu_nodes_max" {
  description = "Most GPU nodes at once; with an autoscaler there are none while nobody trains."
  type        = number
  default     = 2

  validation {
    condition     = var.gpu_nodes_max >= 1 && var.gpu_nodes_max <= 32
    error_message = "gpu_nodes_max: expected 1 to 32."
  }
}

variable "incoming_days" {
  description = "Days after which arrived photos go: what was taken in lies in imagery/ as well. Null: never."
  type        = number
  default     = null

  validation {
    condition     = var.incoming_days == null || try(var.incoming_days >= 30, false)
    error_message = "incoming_days: expected 30 or more, so that a broken poll is noticed before photos go."
  }
}
