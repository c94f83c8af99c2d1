//! Names that the operator, the CLI and the chart share.

/// `apiVersion` of all kinds.
pub const API_VERSION: &str = "fraudpipeline.dev/v1alpha1";

/// Field manager of every server-side apply of the operator.
pub const FIELD_MANAGER: &str = "fraud-operator";
/// Finalizer of a FraudPipeline: the operator takes the data plane down before the object goes.
pub const FINALIZER: &str = "fraudpipeline.dev/teardown";

/// Annotation on a FraudPipeline whose value is its epoch: lets it be deleted in the active region.
pub const CONFIRM_DELETE_ANNOTATION: &str = "fraudpipeline.dev/confirm-delete";
/// Annotation on pod templates: digest of the configuration that the pods must be restarted for.
pub const CONFIG_DIGEST_ANNOTATION: &str = "fraudpipeline.dev/config-digest";

/// Label on the objects of one shard: its number.
pub const SHARD_LABEL: &str = "fraudpipeline.dev/shard";

/// Labels on every owned object.
pub const NAME_LABEL: &str = "app.kubernetes.io/name";
pub const INSTANCE_LABEL: &str = "app.kubernetes.io/instance";
pub const COMPONENT_LABEL: &str = "app.kubernetes.io/component";
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";

/// Value of [`NAME_LABEL`].
pub const NAME_LABEL_VALUE: &str = "fraudpipeline";
/// Value of [`MANAGED_BY_LABEL`].
pub const MANAGED_BY_LABEL_VALUE: &str = FIELD_MANAGER;
