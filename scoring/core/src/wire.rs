//! How our enumerations and the numbers on the wire become each other. Pure.

/// A number that no value of an enumeration has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a known value")]
pub struct UnknownNumber(pub i32);

/// An enumeration of ours for one of `proto::fraud::v1`, whose value 0 ("unspecified") is `None` here.
macro_rules! wire_enum {
    ($(#[$doc:meta])* $name:ident from $wire:ident { $($(#[$variant_doc:meta])* $variant:ident = $wire_variant:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The number on the wire.
            pub fn to_wire(self) -> i32 {
                match self { $(Self::$variant => proto::fraud::v1::$wire::$wire_variant.into(),)+ }
            }

            /// `Ok(None)` when the sender left the field out.
            ///
            /// # Errors
            /// When the number is not known to this version.
            pub fn from_wire(number: i32) -> Result<Option<Self>, $crate::UnknownNumber> {
                match proto::fraud::v1::$wire::try_from(number) {
                    $(Ok(proto::fraud::v1::$wire::$wire_variant) => Ok(Some(Self::$variant)),)+
                    Ok(proto::fraud::v1::$wire::Unspecified) => Ok(None),
                    Err(_) => Err($crate::UnknownNumber(number)),
                }
            }
        }
    };
}

pub(crate) use wire_enum;
