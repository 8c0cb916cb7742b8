//! The codes of all messages. The table only grows: a number keeps its meaning, and a code that is no longer used
//! stays.

use std::fmt;

/// How grave a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file is not compiled.
    Error,
    /// The file is compiled, but its author may have meant something else.
    Warning,
}

macro_rules! codes {
    ($($name:ident = $number:literal, $severity:ident, $title:literal;)*) => {
        /// The code of a message. It is written as `K` and three digits.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Code {
            $(#[doc = $title] $name = $number,)*
        }

        impl Code {
            /// All codes in the order of their numbers.
            pub const ALL: &[Code] = &[$(Code::$name,)*];

            /// How grave its messages are.
            pub fn severity(self) -> Severity {
                match self { $(Code::$name => Severity::$severity,)* }
            }

            /// What its messages are about.
            pub fn title(self) -> &'static str {
                match self { $(Code::$name => $title,)* }
            }
        }
    };
}

codes! {
    SourceTooLarge = 1, Error, "The source is too large.";
    NotUtf8 = 2, Error, "The source is not UTF-8.";
    UnexpectedCharacter = 3, Error, "A character that no statement has.";
    UnterminatedText = 4, Error, "A character literal does not end on its line.";
    MalformedNumber = 5, Error, "A number is malformed.";
    NameTooLong = 6, Error, "A name has more than 63 characters.";
    BrokenContinuation = 7, Error, "A continued line is malformed.";
    TooDeep = 8, Error, "Constructs or expressions are nested too deeply.";
    TooManyErrors = 9, Error, "Compilation ended after too many errors.";
    UnknownOperator = 10, Error, "An operator between dots is unknown.";

    Expected = 101, Error, "Something else was expected here.";
    Unclosed = 102, Error, "A construct is not closed, or closed by the wrong statement.";
    InputOutput = 103, Error, "Input and output are not part of the language.";
    Allocation = 104, Error, "Allocation is not part of the language.";
    Stop = 105, Error, "`stop` is not part of the language.";
    ArrayOperation = 106, Error, "Array sections and operations on whole arrays are not part of the language.";
    MaskedConstruct = 107, Error, "`where`, `forall` and `do concurrent` are not part of the language.";
    CharacterType = 108, Error, "Characters are not part of the language.";
    DerivedType = 109, Error, "Derived types are not part of the language.";
    ComplexType = 110, Error, "Complex numbers are not part of the language.";
    UnsupportedStatement = 111, Error, "A statement of Fortran that is not part of the language.";
    LateDeclaration = 112, Error, "A declaration follows an executable statement.";
    UnsupportedAttribute = 113, Error, "An attribute of Fortran that is not part of the language.";
    ArrayConstructor = 114, Error, "Array constructors are not part of the language.";
    ConsecutiveOperators = 115, Error, "Two operators follow each other.";
    Misplaced = 116, Error, "A statement is in the wrong place.";
    WrongEndName = 117, Error, "The name at the end of a construct is not that at its beginning.";
    UnsupportedUnit = 118, Error, "A program unit that is not part of the language.";

    UnknownAttribute = 201, Error, "An annotation has an unknown attribute.";
    AttributeValue = 202, Error, "An annotation's attribute has an invalid value.";
    RepeatedAttribute = 203, Error, "An attribute is given twice, or contradicts another.";
    StrayAnnotation = 204, Error, "An annotation does not precede a suitable procedure.";
    UnknownDirective = 205, Error, "A directive is unknown.";
    Undeclared = 206, Error, "A name is not declared; there is no implicit typing.";
    ImplicitStatement = 207, Error, "`implicit` may only be followed by `none`.";
    DeclaredTwice = 208, Error, "A name is declared twice.";
    UndeclaredDummy = 209, Error, "A dummy argument has no declaration.";
    IndexArgument = 210, Error, "An index argument is not `integer(int32), value`.";
    NoIntent = 211, Error, "A dummy argument has neither `value` nor `intent`.";
    UnsupportedKind = 212, Error, "A kind is unknown or not supported.";
    InitialisedLocal = 213, Error, "A local variable is initialised, which implies SAVE.";
    InvalidBounds = 214, Error, "Bounds of an array are invalid.";
    ArrayTooLarge = 215, Error, "An array has too many dimensions or elements.";
    UnknownModuleName = 216, Error, "A module has no such name.";
    NotConstant = 217, Error, "An expression must be constant.";
    RepeatedProcedure = 218, Error, "Two procedures have one name.";
    NoKernel = 219, Error, "The file has no kernel and no epilogue.";
    TooFewArguments = 220, Error, "A kernel has fewer arguments than dimensions.";
    AssumedShape = 221, Error, "A dummy of assumed shape has several dimensions.";
    AttributeConflict = 222, Error, "Attributes of a declaration contradict each other.";
    TooManyArguments = 223, Error, "A procedure has too many arguments.";
    NotADummy = 224, Error, "An attribute belongs to dummy arguments alone.";

    UnknownProcedure = 301, Error, "A function or subroutine is unknown.";
    OperandType = 302, Error, "Operands have the wrong type.";
    SubscriptCount = 303, Error, "The number of subscripts is not that of the dimensions.";
    IntrinsicArguments = 304, Error, "An intrinsic has the wrong arguments.";
    UnknownKeyword = 305, Error, "An argument's keyword is unknown.";
    ConstantOverflow = 306, Error, "A constant expression overflows.";
    ConstantDivision = 307, Error, "A constant expression divides by zero.";
    WholeArray = 308, Error, "An array stands where an element must stand.";
    NotAnArray = 309, Error, "A scalar has subscripts.";
    SubscriptType = 310, Error, "A subscript is not an integer.";
    SubscriptRange = 311, Error, "A constant subscript is outside its bounds.";
    NotAFunction = 312, Error, "A procedure is used as what it is not.";
    Recursion = 313, Error, "A procedure calls itself.";
    ProcedureArguments = 314, Error, "A call has the wrong arguments.";
    ArrayDummy = 315, Error, "Dummies of procedures that kernels call are scalars.";
    BozPlace = 316, Error, "A binary, octal or hexadecimal constant stands outside `int` and `real`.";
    LiteralRange = 318, Error, "A number is outside the range of its type.";
    KindArgument = 319, Error, "A kind argument is not a constant.";

    AssignedType = 401, Error, "A value cannot be converted to its target's type.";
    NotAssignable = 402, Error, "The target cannot be changed.";
    ConditionType = 403, Error, "A condition is not logical.";
    SelectorType = 404, Error, "A selector is not an integer and not logical.";
    CaseOverlap = 405, Error, "Two cases have a value in common.";
    CaseValue = 406, Error, "A case value is invalid.";
    LoopVariable = 407, Error, "A loop's variable or bounds are not integers.";
    ZeroStep = 408, Error, "A loop's step is zero.";
    NoLoop = 409, Error, "`exit` or `cycle` is outside a loop.";
    UnknownLoop = 410, Error, "No loop of this name is around the statement.";
    NoResult = 411, Error, "A function never defines its result.";

    DivergentBarrier = 501, Error, "Not all points of a workgroup may reach a barrier.";
    BarrierAfterReturn = 502, Error, "Some points of a workgroup may have returned before a barrier.";
    WorkgroupInProcedure = 503, Error, "Workgroup features stand outside a kernel.";
    WorkgroupAuto = 504, Error, "Workgroup features need a fixed local size.";
    InvalidReduction = 505, Error, "A reduction is invalid.";
    ReductionUse = 506, Error, "A reduction's name is used for something else.";
    WorkgroupElement = 507, Error, "A kernel with workgroup features has dummies without shape.";
    WorkgroupReduction = 508, Error, "A kernel has workgroup features and a reduction.";
    InvalidShared = 509, Error, "`!@shared` does not follow a local array.";
    EpilogueSignature = 510, Error, "An epilogue has the wrong arguments or result.";
    EpilogueArrays = 511, Error, "An epilogue has too many arrays.";
    LocalSize = 512, Error, "A workgroup has too many points.";
    SharedTooLarge = 513, Error, "Workgroup memory is too large.";
    PrivateTooLarge = 514, Error, "Private arrays are too large.";

    NoInt64 = 601, Error, "OpenGL has no 64-bit integers.";
    NoReal64 = 602, Error, "This version of GLSL lacks an operation on real(real64).";
    NoPrecise = 603, Error, "GLSL ES has no exact arithmetic for contract=off.";

    Race = 701, Error, "Two points access one element, and nothing orders them.";
    OutOfBounds = 702, Error, "An access lies outside of an array.";
    Uninitialised = 703, Error, "A variable is read before it has a value.";

    CaseOnly = 901, Warning, "Two names differ only in case.";
    UnknownModule = 902, Warning, "A module is not part of the file.";
    LocalSizeIgnored = 904, Warning, "A local size has no effect.";
    NeverWritten = 905, Warning, "An intent(out) argument is never written.";
}

impl fmt::Display for Code {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "K{:03}", *self as u16)
    }
}

impl serde::Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}
