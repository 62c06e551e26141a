"""Amazon's machines: launched, looked at and terminated. The only folder that imports boto3 and botocore."""

from cluster.aws.commands import add_aws

__all__ = ["add_aws"]
