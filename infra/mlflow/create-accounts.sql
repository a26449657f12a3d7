create database mlflow_accounts;
