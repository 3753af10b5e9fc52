//! The request for a producer's number, which the library doesn't have.
//!
//! Versions 0 and 1 of `InitProducerId`, which are the same on the wire: every broker since Kafka 0.11 speaks them.

use std::io::{Read, Write};

use rskafka::protocol::api_key::ApiKey;
use rskafka::protocol::api_version::{ApiVersion, ApiVersionRange};
use rskafka::protocol::error::Error;
use rskafka::protocol::messages::{
    ReadVersionedError, ReadVersionedType, RequestBody, WriteVersionedError, WriteVersionedType,
};
use rskafka::protocol::primitives::{Int16, Int32, Int64, NullableString};
use rskafka::protocol::traits::{ReadType as _, WriteType as _};

/// Asks for a number for a producer without transactions.
#[derive(Debug)]
pub(super) struct InitProducerIdRequest;

#[derive(Debug)]
pub(super) struct InitProducerIdResponse {
    pub(super) throttle_time_ms: i32,
    pub(super) error: Option<Error>,
    pub(super) id: i64,
    pub(super) epoch: i16,
}

impl RequestBody for InitProducerIdRequest {
    type ResponseBody = InitProducerIdResponse;

    const API_KEY: ApiKey = ApiKey::InitProducerId;
    const API_VERSION_RANGE: ApiVersionRange =
        ApiVersionRange::new(ApiVersion(Int16(0)), ApiVersion(Int16(1)));
    const FIRST_TAGGED_FIELD_IN_REQUEST_VERSION: ApiVersion = ApiVersion(Int16(2));
}

impl<W: Write> WriteVersionedType<W> for InitProducerIdRequest {
    fn write_versioned(&self, writer: &mut W, _: ApiVersion) -> Result<(), WriteVersionedError> {
        NullableString(None).write(writer)?;
        // The time after which a transaction ends; without one it says nothing.
        Int32(i32::MAX).write(writer)?;
        Ok(())
    }
}

impl<R: Read> ReadVersionedType<R> for InitProducerIdResponse {
    fn read_versioned(reader: &mut R, _: ApiVersion) -> Result<Self, ReadVersionedError> {
        Ok(Self {
            throttle_time_ms: Int32::read(reader)?.0,
            error: Error::new(Int16::read(reader)?.0),
            id: Int64::read(reader)?.0,
            epoch: Int16::read(reader)?.0,
        })
    }
}
