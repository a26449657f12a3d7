output "incoming" {
  description = "Where surveyors upload; imagery.yaml: incoming."
  value       = "s3://${aws_s3_bucket.this.id}/incoming"
}

output "store" {
  description = "What was taken in; imagery.yaml: store."
  value       = "s3://${aws_s3_bucket.this.id}/imagery"
}

output "dvc_remote" {
  description = "URL of the DVC remote."
  value       = "s3://${aws_s3_bucket.this.id}/dvc"
}

output "mlflow_artifacts" {
  description = "Artifact store of the MLflow server."
  value       = "s3://${aws_s3_bucket.this.id}/mlflow"
}

output "role_arn" {
  description = "For the service accounts' annotation in infra/kubernetes/gpu; null without a cluster."
  value       = one(aws_iam_role.pods[*].arn)
}
