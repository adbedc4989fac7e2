//! Runs Jsonnet as Kratos does: a function of `ctx`, without imports.

use rsjsonnet_lang::arena::Arena;
use rsjsonnet_lang::interner::InternedStr;
use rsjsonnet_lang::program::{
    Callbacks, EvalStackTraceItem, ImportError, NativeError, Program, Thunk, Value,
};
use rsjsonnet_lang::span::SpanId;

/// Returns what `template` makes of `ctx`, or the error.
pub fn call(template: &str, ctx: &serde_json::Value) -> Result<String, String> {
    let arena = Arena::new();
    let mut program = Program::new(&arena);
    let function = load(&mut program, template, "template")?;
    // JSON is valid Jsonnet.
    let ctx = load(&mut program, &ctx.to_string(), "ctx")?;
    let name = program.intern_str("ctx");
    let result = program
        .eval_call(&function, &[], &[(name, ctx)], &mut Nothing)
        .map_err(|error| format!("{error:?}"))?;
    program
        .manifest_json(&result, true)
        .map_err(|error| format!("{error:?}"))
}

fn load<'p>(program: &mut Program<'p>, source: &str, name: &str) -> Result<Thunk<'p>, String> {
    let (context, _) = program
        .span_manager_mut()
        .insert_source_context(source.len());
    program
        .load_source(context, source.as_bytes(), true, name)
        .map_err(|error| format!("{error:?}"))
}

/// A template can import and call nothing.
struct Nothing;

impl<'p> Callbacks<'p> for Nothing {
    fn import(
        &mut self,
        _: &mut Program<'p>,
        _: SpanId,
        _: &str,
    ) -> Result<Thunk<'p>, ImportError> {
        Err(ImportError)
    }

    fn import_str(
        &mut self,
        _: &mut Program<'p>,
        _: SpanId,
        _: &str,
    ) -> Result<String, ImportError> {
        Err(ImportError)
    }

    fn import_bin(
        &mut self,
        _: &mut Program<'p>,
        _: SpanId,
        _: &str,
    ) -> Result<Vec<u8>, ImportError> {
        Err(ImportError)
    }

    fn trace(&mut self, _: &mut Program<'p>, _: &str, _: &[EvalStackTraceItem]) {}

    fn native_call(
        &mut self,
        _: &mut Program<'p>,
        _: InternedStr<'p>,
        _: &[Value<'p>],
    ) -> Result<Value<'p>, NativeError> {
        Err(NativeError)
    }
}
