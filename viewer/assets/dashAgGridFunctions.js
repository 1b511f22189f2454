// Functions that the grids' columns name. Numbers have three to four digits; null is "not finite".
(function (functions) {
  "use strict";

  function short(value) {
    if (value === 0) return "0";
    const size = Math.abs(value);
    if (size >= 1e-3 && size < 1e5) return String(Number(value.toPrecision(size >= 1e4 ? 5 : 4))).replace("-", "−");
    const [mantissa, exponent] = value.toExponential(3).split("e");
    return (String(Number(mantissa)) + "e" + Number(exponent)).replaceAll("-", "−");
  }

  functions.stepscopeNumber = function (params, isCount) {
    if (params.value === undefined) return "";
    if (params.value === null) return "NaN";
    return isCount ? params.value.toLocaleString("en") : short(params.value);
  };

  functions.stepscopeFull = function (params) {
    return params.value === undefined || params.value === null ? null : String(params.value);
  };

  functions.stepscopeByPosition = function (a, b, first, second) {
    return first.data.position - second.data.position;
  };
})((window.dashAgGridFunctions = window.dashAgGridFunctions || {}));
